// Package cni is the plug-in that container runtimes call for each pod (CNI
// specification 0.3.1, 0.4.0, 1.0.0 and 1.1.0). It asks the agent for addresses,
// makes the pod's link, and returns when the pod's routes are in the kernel.
//
// It guarantees that an ADD that fails leaves nothing behind; that a DEL
// succeeds whether or not the agent, the network namespace or anything else of
// the pod is still there; and that addresses are given back only after the link
// that carried them is gone. It leaves to the agent which addresses a pod gets,
// and to kernel.Attacher how its link is made.
//
// The network configuration has these keys besides those of the specification;
// others are refused:
//
//	socket           where the agent listens (/run/cairn/cni.sock)
//	spool            where DELs are left for an agent that is away (/var/lib/cairn/cni/spool)
//	mtu              of the pod's link, in bytes, 1280 to 65535 (0: the agent's choice)
//	ipam             {assign_ipv4, assign_ipv6: true or false; ipv4_pools, ipv6_pools: names or CIDRs};
//	                 neither assign: one address of each family that has a pool
//	timeout          bound of a whole ADD (30s)
//	connect_timeout  how long to wait for an agent that is away or not ready (5s)
//
// Failures carry the specification's codes:
//
//	 3  the agent knows no such container (CHECK)
//	 4  CNI_ARGS or another variable is wrong
//	 7  the network configuration is wrong, or asks for what can't be
//	 8  the pod's network namespace is missing, or is the host's
//	11  try again later: no agent answers, it is not ready, or no address is free
//	50  no agent answers, or it is not ready (STATUS)
//	101 the pod's network is not what ADD made (CHECK)
//	999 anything else
package cni
