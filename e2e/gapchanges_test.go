package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/lab"
)

// The ports that every policy decides about.
const (
	portOpen = 8080 // allowed
	portIn   = 9001 // denied to come in, allowed to go out
	portOut  = 9102 // the other way round: each is denied at one place only
)

// shut returns the port that policies of a direction deny, and the one that others do.
func shut(egress bool) (own, others uint16) {
	if egress {
		return portOut, portIn
	}
	return portIn, portOut
}

// Tiers of the policies. All come before the default one, where a policy that is about
// every pod decides what others did not.
const (
	tierAny  = "any"  // its policies decide, or pass on to other tiers, so its default action may be any
	tierSoft = "soft" // passes what its policies don't decide
	tierHard = "hard" // denies it
)

// changes are random ones of all that policies are made of. Nodes may hear of them in any
// order: whichever of them they know and whichever not, each policy allows what goes to
// portOpen between the pods, and denies what goes to the port shut, or leaves it to one
// that does.
type changes struct {
	rnd   *rand.Rand
	store datastore.Store
	pods  map[string]lab.Pod
	there map[string]bool // the policies that there are
	marks int
}

// object is a resource to be written.
type object interface {
	v1.Object
	Default()
}

// begin writes what there must be before anything changes.
func (c *changes) begin(ctx context.Context) error {
	first := []object{c.namespace()}
	for _, name := range []string{tierAny, tierSoft, tierHard} {
		first = append(first, c.tier(name))
	}
	for i := range gapSets {
		first = append(first, c.set(i))
	}
	first = append(first, c.slice(false), c.slice(true), c.base())
	for _, o := range first {
		if err := c.put(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// How many network sets and policies there are at most.
const (
	gapSets     = 3
	gapPolicies = 40
)

// change changes one object.
func (c *changes) change(ctx context.Context) error {
	switch n := c.rnd.IntN(20); {
	case n < 2:
		return c.put(ctx, c.set(c.rnd.IntN(gapSets)))
	case n < 4:
		return c.relabel(ctx)
	case n < 5:
		return c.put(ctx, c.namespace())
	case n < 6:
		return c.put(ctx, c.slice(c.one(2)))
	case n < 8:
		return c.put(ctx, c.tier(pick(c, tierAny, tierSoft, tierHard)))
	case n < 9:
		return c.put(ctx, c.base())
	}
	name := fmt.Sprintf("p%d", c.rnd.IntN(gapPolicies))
	if c.there[name] && c.one(3) {
		delete(c.there, name)
		return c.store.Delete(ctx, datastore.Key{Kind: "GlobalNetworkPolicy", Name: name}, "")
	}
	c.there[name] = true
	return c.put(ctx, c.policy(name))
}

// mark writes a policy that denies nobody anything else, and returns the port by which
// it is known where it is enforced.
func (c *changes) mark(ctx context.Context) (port int, err error) {
	c.marks++
	port = 20000 + c.marks
	p := globalPolicy("mark")
	p.Spec.Selector = "has(mark)"
	p.Spec.Ingress = []v1.Rule{rule(v1.ActionAllow, v1.ProtocolTCP, v1.EntityRule{}, v1.EntityRule{Ports: []v1.Port{v1.Port(fmt.Sprint(port))}})}
	return port, c.put(ctx, p)
}

// one says yes once in n times.
func (c *changes) one(n int) bool { return c.rnd.IntN(n) == 0 }

func pick[T any](c *changes, of ...T) T { return of[c.rnd.IntN(len(of))] }

func (c *changes) namespace() *v1.Namespace {
	n := &v1.Namespace{}
	n.Name = "default"
	n.Labels = map[string]string{"env": pick(c, "dev", "test", "prod"), "noise": fmt.Sprint(c.rnd.IntN(100))}
	return n
}

func (c *changes) tier(name string) *v1.Tier {
	t := &v1.Tier{}
	t.Name = name
	order := float64(c.rnd.IntN(100))
	t.Spec.Order = &order
	t.Spec.DefaultAction = map[string]v1.PolicyAction{tierSoft: v1.ActionPass, tierHard: v1.ActionDeny}[name]
	if name == tierAny {
		t.Spec.DefaultAction = pick(c, v1.ActionDeny, v1.ActionPass)
	}
	return t
}

// set returns a network set that holds every pod.
func (c *changes) set(i int) *v1.GlobalNetworkSet {
	s := &v1.GlobalNetworkSet{}
	s.Name = fmt.Sprintf("cover%d", i)
	s.Labels = map[string]string{"cover": "yes", "noise": fmt.Sprint(c.rnd.IntN(100))}
	s.Spec.Nets = c.nets()
	return s
}

// nets returns ranges that hold every pod, in no order.
func (c *changes) nets() []string {
	nets := slices.Concat(
		pick(c, []string{"10.244.0.0/16"}, []string{"10.244.0.0/17", "10.244.128.0/17"}, []string{"10.240.0.0/12"}, []string{"0.0.0.0/1", "10.244.0.0/16"},
			[]string{"10.0.0.0/8", "10.244.64.0/18"}),
		pick(c, []string{"fd00:10:244::/48"}, []string{"fd00:10:244::/49", "fd00:10:244:8000::/49"}, []string{"fd00::/16"}, []string{"::/0"}),
		pick(c, nil, []string{"192.0.2.0/24", "2001:db8::/32"}, []string{"198.51.100.7", "10.244.0.7", "2001:db8::7"}),
	)
	c.rnd.Shuffle(len(nets), func(i, j int) { nets[i], nets[j] = nets[j], nets[i] })
	return nets
}

// slice returns what of one family is behind the Service: port open of every pod.
func (c *changes) slice(v6 bool) *v1.EndpointSlice {
	s := &v1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4}
	s.Namespace, s.Name = "default", "open-4"
	extra := fmt.Sprintf("192.0.2.%d", c.rnd.IntN(200))
	if v6 {
		s.Name, s.AddressType, extra = "open-6", discoveryv1.AddressTypeIPv6, fmt.Sprintf("2001:db8::%d", c.rnd.IntN(200))
	}
	s.Labels = map[string]string{discoveryv1.LabelServiceName: "open"}
	addrs := []string{extra}
	for _, p := range c.pods {
		for _, a := range p.Addrs {
			if a.Is6() == v6 {
				addrs = append(addrs, a.String())
			}
		}
	}
	for _, a := range addrs {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	for _, protocol := range []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP} {
		port, stock := int32(portOpen), stockProtocol(protocol)
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Port: &port, Protocol: &stock})
	}
	return s
}

// relabel gives a pod other labels.
func (c *changes) relabel(ctx context.Context) error {
	name := pick(c, "client", "near", "far")
	key := datastore.Key{Kind: "WorkloadEndpoint", Namespace: "default", Name: name + "-eth0"}
	_, err := datastore.Update(ctx, c.store, key, func(w *v1.WorkloadEndpoint) error {
		w.Labels = map[string]string{"team": pick(c, "red", "green", "blue"), "noise": fmt.Sprint(c.rnd.IntN(100))}
		return nil
	})
	if err != nil {
		return fmt.Errorf("relabel %s: %w", key, err)
	}
	return nil
}

func globalPolicy(name string) *v1.GlobalNetworkPolicy {
	p := &v1.GlobalNetworkPolicy{}
	p.Name = name
	return p
}
