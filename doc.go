// Package cairn is a routed network for Kubernetes on one's own hardware.
//
// Each pod has an address that is routed, not bridged. Each node runs one agent
// that programs routes and tunnels and speaks BGP. The architecture in one line:
// three snapshots in (datastore, BGP routes, host), one desired value out, one loop
// that makes the world equal to it.
//
//	cmd/           the programs: cairn, cairn-cni, cairn-lab; only they choose drivers
//	agent/         the agent's shell, its pure core (calc), its loop (reconcile)
//	cni/ ctl/      the CNI plug-in and the command line
//	policy/        who may talk to whom: the language, its meaning, its compiler
//	ipam/          blocks of addresses and who has which
//	datastore/     the seam to etcd, and the mirror of what is in it
//	bgp/           the seam to the BGP speaker
//	kernel/        the seam to the kernel
//	api/v1/        the resources
//	immutable/     maps that share what did not change: cost follows the change
//	lab/ e2e/      whole clusters on one machine, and what they must show
package cairn
