package policy

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"cairn.network/cairn/selector"
)

// memberOf says that a selector stands for an address or net.
type memberOf struct {
	selector string
	prefix   netip.Prefix
}

// portOf says that a named port stands for an address and port.
type portOf struct {
	of NamedPorts
	at netip.AddrPort
}

// heard is what Members told, and checks that it is told as promised.
type heard struct {
	members map[memberOf]bool
	ports   map[portOf]bool
}

func newHeard(t interface{ Errorf(string, ...any) }) (heard, Edits) {
	h := heard{map[memberOf]bool{}, map[portOf]bool{}}
	return h, Edits{
		Prefix: func(s string, p netip.Prefix, in bool) {
			for m := range h.members {
				if in && m.selector == s && !p.IsSingleIP() && !m.prefix.IsSingleIP() && m.prefix.Overlaps(p) {
					t.Errorf("%s: %s overlaps %s", s, p, m.prefix)
				}
			}
			edit(t, h.members, memberOf{s, p}, in)
		},
		Port: func(of NamedPorts, at netip.AddrPort, in bool) { edit(t, h.ports, portOf{of, at}, in) },
	}
}

func edit[K comparable](t interface{ Errorf(string, ...any) }, all map[K]bool, k K, in bool) {
	if all[k] == in {
		t.Errorf("told twice of %v: %v", k, in)
	}
	if in {
		all[k] = true
	} else {
		delete(all, k)
	}
}

// watching is what is watched, and how often.
type watching struct {
	selectors map[string]int
	ports     map[NamedPorts]int
}

// bruteForce asks every selector that is watched about every endpoint of a world.
func bruteForce(t interface{ Fatalf(string, ...any) }, w *World, watched watching) heard {
	h := heard{map[memberOf]bool{}, map[portOf]bool{}}
	chosen := func(text string, f func(*Endpoint)) {
		s, err := selector.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for _, e := range w.Endpoints {
			if s.Matches(w.labelsOf(e)) {
				f(e)
			}
		}
	}
	for text := range watched.selectors {
		var nets []netip.Prefix
		chosen(text, func(e *Endpoint) {
			for _, a := range e.Addrs {
				h.members[memberOf{text, wholeAddr(a)}] = true
			}
			nets = append(nets, e.Nets...)
		})
		for _, p := range nets {
			inner := slices.ContainsFunc(nets, func(o netip.Prefix) bool { return o.Bits() < p.Bits() && o.Overlaps(p) })
			if !inner || p.IsSingleIP() {
				h.members[memberOf{text, p.Masked()}] = true
			}
		}
	}
	for of := range watched.ports {
		chosen(of.Selector, func(e *Endpoint) {
			for _, p := range e.Ports {
				for _, a := range e.Addrs {
					if p.Name == of.Name && p.Protocol == of.Protocol {
						h.ports[portOf{of, netip.AddrPortFrom(a, p.Port)}] = true
					}
				}
			}
		})
	}
	return h
}

// selectors that tests watch.
var watchable = []string{
	`all()`, `!all()`, `app == "a"`, `!has(app)`, `app in {"a", "b"} || pcns.env == "b"`, `pcns.env == "a" && app != "a"`,
	`projectcalico.org/namespace == "one"`, `!has(projectcalico.org/namespace)`, `projectcalico.org/orchestrator == "k8s" && has(pcsa.env)`,
	`pcns.kubernetes.io/metadata.name == "two"`, `pcsa.projectcalico.org/name in {"x"} && !has(pcns.env)`,
	`projectcalico.org/serviceaccount == "x" || pcns.app == "a"`, `pcns.env starts with "a"`,
}

// endpoints makes endpoints of every kind, with labels that hide each other.
func endpoints() *rapid.Generator[*Endpoint] {
	env := rapid.SampledFrom([]string{"a", "b"})
	label := rapid.SampledFrom([]string{"app", "pcns.env", "pcsa.env", "pcns.app", LabelNamespace, LabelOrchestrator, LabelServiceAccount, "pcns.kubernetes.io/metadata.name"})
	addr := rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "10.0.1.1", "fd00::1", "fd00::2"})
	net := rapid.SampledFrom([]string{"10.0.0.0/8", "10.0.0.0/16", "10.0.0.0/24", "10.0.0.7/24", "10.0.1.0/24", "10.0.0.1/32", "0.0.0.0/0", "fd00::/16", "fd00::/64", "fd00::1/128", "::/0"})
	return rapid.Custom(func(t *rapid.T) *Endpoint {
		e := &Endpoint{Labels: rapid.MapOfN(label, env, 0, 3).Draw(t, "labels")}
		e.Kind = rapid.SampledFrom([]string{KindPod, KindHost, KindSet, KindGlobal}).Draw(t, "kind")
		e.Name = rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "name")
		if e.Kind == KindPod || e.Kind == KindSet {
			e.Namespace = rapid.SampledFrom([]string{"one", "two"}).Draw(t, "namespace")
		}
		if e.Kind == KindPod {
			e.ServiceAccount = rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "account")
		}
		if e.Kind == KindSet || e.Kind == KindGlobal {
			for _, p := range rapid.SliceOfN(net, 0, 4).Draw(t, "nets") {
				e.Nets = append(e.Nets, netip.MustParsePrefix(p))
			}
			return e
		}
		for _, a := range rapid.SliceOfN(addr, 0, 2).Draw(t, "addresses") {
			e.Addrs = append(e.Addrs, netip.MustParseAddr(a))
		}
		for range rapid.IntRange(0, 2).Draw(t, "ports") {
			e.Ports = append(e.Ports, NamedPort{rapid.SampledFrom([]string{"http", "dns"}).Draw(t, "name"), rapid.SampledFrom([]uint8{6, 17}).Draw(t, "protocol"), rapid.Uint16Range(80, 81).Draw(t, "port")})
		}
		return e
	})
}

// steps are what may happen to members, each done to the world as well.
func steps(m *Members, w *World, watched watching) map[string]func(*rapid.T) {
	env := rapid.MapOfN(rapid.SampledFrom([]string{"env", "app", LabelName}), rapid.SampledFrom([]string{"a", "b"}), 0, 2)
	name := rapid.SampledFrom([]string{"one", "two"})
	account := rapid.SampledFrom([]string{"x", "y"})
	text := rapid.SampledFrom(watchable)
	known := func(t *rapid.T, text string) *selector.Selector {
		s, err := selector.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return s
	}
	without := func(id ID) {
		w.Endpoints = slices.DeleteFunc(w.Endpoints, func(e *Endpoint) bool { return e.ID == id })
	}
	return map[string]func(*rapid.T){
		"endpoint": func(t *rapid.T) {
			e := endpoints().Draw(t, "endpoint")
			without(e.ID)
			w.Endpoints = append(w.Endpoints, e)
			m.SetEndpoint(e)
		},
		"endpoint gone": func(t *rapid.T) {
			id := endpoints().Draw(t, "endpoint").ID
			without(id)
			m.DeleteEndpoint(id)
		},
		"namespace": func(t *rapid.T) {
			n, l := name.Draw(t, "name"), env.Draw(t, "labels")
			w.Namespaces[n] = l
			m.SetNamespace(n, l)
		},
		"namespace gone": func(t *rapid.T) {
			n := name.Draw(t, "name")
			delete(w.Namespaces, n)
			m.SetNamespace(n, nil)
		},
		"account": func(t *rapid.T) {
			id, l := ID{Namespace: name.Draw(t, "namespace"), Name: account.Draw(t, "name")}, env.Draw(t, "labels")
			w.ServiceAccounts[id] = l
			m.SetServiceAccount(id, l)
		},
		"account gone": func(t *rapid.T) {
			id := ID{Namespace: name.Draw(t, "namespace"), Name: account.Draw(t, "name")}
			delete(w.ServiceAccounts, id)
			m.SetServiceAccount(id, nil)
		},
		"watch": func(t *rapid.T) {
			s := text.Draw(t, "selector")
			watched.selectors[s]++
			m.Watch(known(t, s))
		},
		"unwatch": func(t *rapid.T) {
			s := text.Draw(t, "selector")
			m.Unwatch(known(t, s))
			drop(watched.selectors, s)
		},
		"watch port": func(t *rapid.T) {
			var s *selector.Selector
			if rapid.Bool().Draw(t, "of some") {
				s = known(t, text.Draw(t, "selector"))
			}
			watched.ports[m.WatchPort(s, rapid.SampledFrom([]string{"http", "dns"}).Draw(t, "name"), 6)]++
		},
		"unwatch port": func(t *rapid.T) {
			of := NamedPorts{text.Draw(t, "selector"), rapid.SampledFrom([]string{"http", "dns"}).Draw(t, "name"), 6}
			m.UnwatchPort(of)
			drop(watched.ports, of)
		},
	}
}

// drop counts one less.
func drop[K comparable](all map[K]int, k K) {
	if all[k]--; all[k] <= 0 {
		delete(all, k)
	}
}

// TestMembersAreBruteForce checks that after any changes what was told is what asking
// every selector about every endpoint gives.
func TestMembersAreBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		got, edits := newHeard(t)
		m := NewMembers(edits)
		w := &World{Namespaces: map[string]map[string]string{}, ServiceAccounts: map[ID]map[string]string{}}
		watched := watching{map[string]int{}, map[NamedPorts]int{}}
		all := steps(m, w, watched)
		all[""] = func(t *rapid.T) {
			want := bruteForce(t, w, watched)
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(heard{}), cmp.Comparer(func(a, b memberOf) bool { return a == b }), cmp.Comparer(func(a, b portOf) bool { return a == b })); diff != "" {
				t.Fatalf("(-want +got)\n%s", diff)
			}
		}
		t.Repeat(all)

		for s, n := range watched.selectors {
			parsed, err := selector.Parse(s)
			if err != nil {
				t.Fatalf("%s: %v", s, err)
			}
			for range n {
				m.Unwatch(parsed)
			}
		}
		for of, n := range watched.ports {
			for range n {
				m.UnwatchPort(of)
			}
		}
		if len(got.members)+len(got.ports)+len(m.watches) > 0 {
			t.Fatalf("left when nothing is watched: %v, %v", got, m.watches)
		}
	})
}

func TestWidest(t *testing.T) {
	for name, row := range map[string]struct{ nets, want []string }{
		"none":             {nil, nil},
		"one":              {[]string{"10.0.0.0/8"}, []string{"10.0.0.0/8"}},
		"twice":            {[]string{"10.0.0.0/8", "10.0.0.0/8"}, []string{"10.0.0.0/8"}},
		"side by side":     {[]string{"10.0.1.0/24", "10.0.0.0/24"}, []string{"10.0.0.0/24", "10.0.1.0/24"}},
		"in one another":   {[]string{"10.1.0.0/24", "10.1.0.0/16", "10.0.0.0/8"}, []string{"10.0.0.0/8"}},
		"in, and behind":   {[]string{"10.0.255.0/24", "10.1.0.0/24", "10.0.0.0/16"}, []string{"10.0.0.0/16", "10.1.0.0/24"}},
		"everything":       {[]string{"0.0.0.0/0", "255.0.0.0/8"}, []string{"0.0.0.0/0"}},
		"both families":    {[]string{"::/0", "0.0.0.0/0", "fd00::/8"}, []string{"0.0.0.0/0", "::/0"}},
		"IPv6":             {[]string{"fd00:1::/32", "fd00::/16", "fe80::/10"}, []string{"fd00::/16", "fe80::/10"}},
		"of other lengths": {[]string{"10.0.0.0/31", "10.0.0.2/31", "10.0.0.0/30"}, []string{"10.0.0.0/30"}},
	} {
		t.Run(name, func(t *testing.T) {
			var all []netip.Prefix
			for _, p := range row.nets {
				all = append(all, netip.MustParsePrefix(p))
			}
			nets := countedNets(nil).changed(all, nil)
			var got []string
			for _, p := range nets.widest() {
				got = append(got, p.String())
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if left := nets.changed(nil, all); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}
