package agent_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/cni/protocol"
	"cairn.network/cairn/kernel"
)

// connection is one by TCP from a client to a server, which the client may know by
// another address.
func connection(client, server netip.Addr, port uint16, known ...string) kernel.Connection {
	c := kernel.Connection{
		Original: kernel.Tuple{Src: client, Dst: server, Protocol: kernel.ProtoTCP, SrcPort: 40000, DstPort: port},
		Reply:    kernel.Tuple{Src: server, Dst: client, Protocol: kernel.ProtoTCP, SrcPort: port, DstPort: 40000},
	}
	for _, a := range known {
		c.Original.Dst, c.DstTranslated = netip.MustParseAddr(a), true
	}
	return c
}

const (
	terminate = `
apiVersion: cairn.network/v1
kind: AgentConfiguration
metadata: {name: default}
spec: {policyChange: Terminate}
`
	// noWeb is against TCP to port 80, both ways, of the pods with this label.
	noWeb = `
apiVersion: cairn.network/v1
kind: GlobalNetworkPolicy
metadata: {name: no-web}
spec:
  selector: app == 'web'
  types: [Ingress, Egress]
  ingress: [{action: Deny, protocol: TCP, destination: {ports: [80]}}, {action: Allow}]
  egress: [{action: Deny, protocol: TCP, destination: {ports: [80]}}, {action: Allow}]
`
)

// apply creates what YAML says.
func (s *solo) apply(yaml string) {
	s.t.Helper()
	objects, err := v1.Decode([]byte(yaml))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, o := range objects {
		s.create(o)
	}
}

// web attaches a pod with the label that noWeb selects.
func (s *solo) web(pod string) protocol.Response {
	req := request(protocol.VerbAdd, pod)
	req.Labels = map[string]string{"app": "web"}
	return s.attach(req)
}

// listings counts how often connections are listed, which takes some time.
type listings struct {
	*kernel.Fake
	n    atomic.Int32
	took time.Duration
}

func (l *listings) List(ctx context.Context, f func(kernel.Connection) bool, addrs ...netip.Addr) error {
	l.n.Add(1)
	time.Sleep(l.took) // the bubble's clock
	return l.Fake.List(ctx, f, addrs...)
}

// TestPolicyChange holds which connections end with a policy that refuses them.
func TestPolicyChange(t *testing.T) {
	for name, mode := range map[string]string{"Keep": "", "Terminate": terminate} {
		t.Run(name, func(t *testing.T) {
			alone(t, func(t *testing.T, s *solo) {
				if mode != "" {
					s.apply(mode)
				}
				s.start()
				web, other := s.web("web"), s.add("other")
				ext4, ext6 := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8:9::1")
				host4, host6 := s.cfg.IPv4.Addr(), s.cfg.IPv6.Addr()
				refused := map[string]kernel.Connection{
					"to the pod":           connection(ext4, web.IPv4, 80),
					"to the pod, IPv6":     connection(ext6, web.IPv6, 80),
					"by a Service":         connection(other.IPv4, web.IPv4, 80, "10.96.0.1"),
					"by a Service, IPv6":   connection(other.IPv6, web.IPv6, 80, "fd00:96::1"),
					"from the pod":         connection(web.IPv4, ext4, 80),
					"from the pod, IPv6":   connection(web.IPv6, ext6, 80),
					"to its host":          connection(web.IPv4, host4, 80),
					"to its host, IPv6":    connection(web.IPv6, host6, 80),
					"to itself by Service": connection(web.IPv4, web.IPv4, 80, "10.96.0.2"),
				}
				kept := map[string]kernel.Connection{
					"another port":       connection(ext4, web.IPv4, 81),
					"another port, IPv6": connection(ext6, web.IPv6, 81),
					"from its host":      connection(host4, web.IPv4, 80),
					"from its host, v6":  connection(host6, web.IPv6, 80),
					"another pod's":      connection(ext4, other.IPv4, 80),
					"no pod's":           connection(ext4, host4, 80),
				}
				for _, c := range []map[string]kernel.Connection{refused, kept} {
					for what := range c {
						s.kernel.AddConnection(c[what])
					}
				}
				s.apply(noWeb)
				s.settle(10 * time.Second)
				left := map[kernel.Tuple]bool{}
				for _, c := range s.kernel.Connections() {
					left[c.Original] = true
				}
				for what, c := range refused {
					if left[c.Original] != (mode == "") {
						t.Errorf("%s (%v): is there: %v", what, c, left[c.Original])
					}
				}
				for what, c := range kept {
					if !left[c.Original] {
						t.Errorf("%s (%v): is gone", what, c)
					}
				}
			})
		})
	}
}

// TestTerminateAtStart holds that what is refused ends also if nobody knows what was
// in force before, and though the table can't be read at first.
func TestTerminateAtStart(t *testing.T) {
	for name, row := range map[string]struct{ before, after string }{
		"an agent that starts": {terminate + "---" + noWeb, ""},
		"Terminate later":      {noWeb, terminate},
	} {
		t.Run(name, func(t *testing.T) {
			alone(t, func(t *testing.T, s *solo) {
				s.start()
				pod := s.web("web")
				s.halt()
				s.kernel.AddConnection(connection(netip.MustParseAddr("203.0.113.1"), pod.IPv4, 80))
				s.kernel.Fail("list", nil, errors.New("interrupted"))
				s.apply(row.before)
				s.start()
				s.settle(10 * time.Second)
				if row.after != "" {
					s.apply(row.after)
				}
				s.settle(10 * time.Second)
				if len(s.kernel.Connections()) != 1 {
					t.Error("it is gone, though nobody could know of it")
				}
				s.kernel.Fail("list", nil, nil)
				s.settle(time.Minute)
				if left := s.kernel.Connections(); len(left) > 0 {
					t.Errorf("there is %v", left)
				}
			})
		})
	}
}

// clients is a policy of the pods of noWeb.
const clients = `
apiVersion: cairn.network/v1
kind: GlobalNetworkPolicy
metadata: {name: clients}
spec:
  selector: app == 'web'
  ingress: [{action: Allow, source: {selector: role == 'client'}}]
`

// TestWhoIsLookedAt holds that connections are listed once for a change that concerns
// a pod of this node, and not for others.
func TestWhoIsLookedAt(t *testing.T) {
	for name, row := range map[string]struct {
		yaml string
		want int32
	}{
		"a policy of the pod":   {noWeb, 1},
		"a policy of nobody":    {`{apiVersion: cairn.network/v1, kind: GlobalNetworkPolicy, metadata: {name: p}, spec: {selector: app == 'none'}}`, 0},
		"what a policy selects": {`{apiVersion: cairn.network/v1, kind: GlobalNetworkSet, metadata: {name: s, labels: {role: client}}, spec: {nets: [198.51.100.0/24]}}`, 1},
		"what none selects":     {`{apiVersion: cairn.network/v1, kind: GlobalNetworkSet, metadata: {name: s, labels: {role: other}}, spec: {nets: [198.51.100.0/24]}}`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			alone(t, func(t *testing.T, s *solo) {
				s.apply(terminate + "---" + clients)
				table := &listings{Fake: s.kernel}
				s.conntrack = table
				s.start()
				s.web("web")
				s.settle(10 * time.Second)
				before := table.n.Load()
				s.apply(row.yaml)
				s.settle(10 * time.Second)
				if d := cmp.Diff(row.want, table.n.Load()-before); d != "" {
					t.Errorf("listings (-want +got):\n%s", d)
				}
				before = table.n.Load()
				s.add("more")
				s.settle(10 * time.Second)
				if n := table.n.Load() - before; n != 0 {
					t.Errorf("another pod: %d listings", n)
				}
			})
		})
	}
}

// TestListingsAreShared holds that changes which come while connections are listed share
// the next listing.
func TestListingsAreShared(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.apply(terminate)
		table := &listings{Fake: s.kernel, took: time.Second}
		s.conntrack = table
		s.start()
		s.web("web")
		s.settle(time.Minute)
		before := table.n.Load()
		for _, yaml := range []string{noWeb, clients, strings.Replace(clients, "name: clients", "name: more", 1)} {
			s.apply(yaml)
			s.settle(100 * time.Millisecond)
		}
		s.settle(time.Minute)
		if d := cmp.Diff(int32(2), table.n.Load()-before); d != "" {
			t.Errorf("listings (-want +got):\n%s", d)
		}
	})
}
