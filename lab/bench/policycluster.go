package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/topology"
)

// Amounts of a cluster with policies.
const (
	policyPods = 100 // of the agent's node, and labels that they are selected by
	// policyKeys is how many labels a remote endpoint has, each chosen by another policy:
	// so a policy's peer is as many endpoints as ten times all by all policies.
	policyKeys   = 10
	policyRemote = 100 // endpoints on each of the other nodes
	policyAlike  = 10  // that have the same labels, as the pods of a Deployment
	policyPort   = 10000
)

// policyTopology is one node, whose agent knows the others from the datastore alone.
const policyTopology = `
racks: [{name: r1, subnets: [10.101.1.0/24], nodes: [n1]}]
routers: [{name: tor, speaker: none}]
pools: [{name: pods, cidr: 10.244.0.0/16}]
resources:
- {apiVersion: cairn.network/v1, kind: BGPConfiguration, metadata: {name: default}, spec: {nodeToNodeMeshEnabled: false}}
`

// policed is a cluster of which one node is real, with pods on it that policies
// protect.
type policed struct {
	*bench
	lab                 *lab.Lab
	store               datastore.Store
	policies, endpoints int
}

// policed brings a cluster up, calls do, and takes it down. The agent is not running
// then.
func (b *bench) policed(ctx context.Context, policies, endpoints int, do func(*policed) error) (err error) {
	t, err := topology.Parse([]byte(policyTopology))
	if err != nil {
		return err
	}
	t.Name = fmt.Sprintf("bench-policies-%d", policies)
	l, err := lab.Up(ctx, t, lab.Options{Root: b.Root, Bin: b.Bin, Progress: func(string) {}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Down(context.WithoutCancel(ctx), b.Root, t.Name)) }()
	store, hangUp, err := open(l)
	if err != nil {
		return err
	}
	defer hangUp()
	c := &policed{bench: b, lab: l, store: store, policies: policies, endpoints: endpoints}
	if err := c.attach(ctx); err != nil {
		return err
	}
	if err := l.Kill(ctx, "n1"); err != nil {
		return err
	}
	if err := c.fill(ctx); err != nil {
		return err
	}
	return do(c)
}

// attach attaches the pods, each with a label of its own.
func (c *policed) attach(ctx context.Context) error {
	node, err := c.lab.Netns("n1")
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, policyPods)
	for i := range policyPods {
		p, err := c.pod(fmt.Sprintf("c%d-%d", c.policies, i))
		if err != nil {
			return err
		}
		p.Node, p.Labels = "n1", map[string]string{"app": appOf(i)}
		wg.Go(func() {
			cni, list, err := c.lab.Runtime(p)
			if err == nil {
				_, _, err = runtime{node, cni, list}.add(ctx, p)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func appOf(i int) string { return fmt.Sprintf("app-%03d", i) }

// fill writes policies and remote endpoints to the datastore.
func (c *policed) fill(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(scaleFillers)
	create := func(o v1.Object) {
		group.Go(func() error {
			_, err := c.store.Create(ctx, o)
			return err
		})
	}
	for i := range c.endpoints {
		create(c.endpoint(i))
	}
	for i := range c.policies {
		create(policyOf(i, policyPort))
	}
	return group.Wait()
}

// peerLabel returns the label and its value that the endpoints of the i-th policy's
// peer have.
func peerLabel(i int) (label, value string) {
	return fmt.Sprintf("role-%d", i%policyKeys), fmt.Sprintf("value-%d", i/policyKeys)
}

// policyOf returns the i-th policy: it lets its peers come to one TCP port of the pods
// with one label.
func policyOf(i int, port uint16) *v1.NetworkPolicy {
	label, value := peerLabel(i)
	tcp := v1.ProtocolTCP
	return &v1.NetworkPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "bench", Name: fmt.Sprintf("policy-%05d", i)},
		Spec: v1.NetworkPolicySpec{
			Selector: fmt.Sprintf("app == '%s'", appOf(i%policyPods)),
			Ingress: []v1.Rule{{
				Action: v1.ActionAllow, Protocol: &tcp,
				Source:      v1.EntityRule{Selector: fmt.Sprintf("%s == '%s'", label, value)},
				Destination: v1.EntityRule{Ports: []v1.Port{v1.Port(fmt.Sprint(port))}},
			}},
		},
	}
}

// endpointAddr returns the address of the i-th remote endpoint; each has several, one
// after the other.
func endpointAddr(i, turn int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, byte(64 + turn), byte(i >> 8), byte(i)})
}

func endpointName(i int) string { return fmt.Sprintf("remote-%05d-eth0", i) }

// endpoint returns the i-th remote endpoint, with a value of each label.
func (c *policed) endpoint(i int) *v1.WorkloadEndpoint {
	values := c.policies / policyKeys
	labels := map[string]string{"pod-template-hash": fmt.Sprintf("%x-%x", i%values, i/values/policyAlike)}
	for k := range policyKeys {
		label, value := peerLabel(i%values*policyKeys + k)
		labels[label] = value
	}
	return &v1.WorkloadEndpoint{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: "WorkloadEndpoint"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "bench", Name: endpointName(i), Labels: labels},
		Spec: v1.WorkloadEndpointSpec{
			Node: nodeName(i / policyRemote), Pod: fmt.Sprintf("remote-%05d", i), ContainerID: fmt.Sprintf("%064x", i),
			Endpoint: "eth0", InterfaceName: fmt.Sprintf("cairn%08x", i), IPNetworks: []string{endpointAddr(i, 0).String() + "/32"},
		},
	}
}
