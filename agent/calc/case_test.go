package calc

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

// readCase reads the inputs of a golden case. Its files:
//
//	input   node NAME; restarting; lacks KIND (of tunnel devices);
//	        met KEY (of a WireGuard peer)
//	store   resources, one a line in YAML's flow style: kind, name, labels,
//	        created (seconds) and spec
//	host    release TEXT; link NAME [mtu N] [down] [driver NAME] [alias TEXT…]
//	        addr LINK PREFIX
//	        route PREFIX [via ADDR] dev LINK [metric N] [weight N] [and via …]
//	pods    NAMESPACE/NAME CONTAINER ADDRESS… (with its link, which is up)
//	        tunnel LINK ADDRESS… (what IPAM gave to a tunnel device)
//	rib     complete
//	        PREFIX from PEER via ADDR [pref N]
func readCase(t *testing.T, a *txtar.Archive) Inputs {
	t.Helper()
	in := Inputs{Node: "n1", Store: datastore.NewSnapshot()}
	host := &kernel.Host{
		Links:   map[string]kernel.Link{},
		Addrs:   map[kernel.Addr]struct{}{},
		Foreign: map[kernel.RouteKey]kernel.Route{},
	}
	rib := &bgp.RIB{Routes: map[netip.Prefix][]bgp.LearnedPath{}}
	var pods []ipam.Assignment
	for _, f := range a.Files {
		if f.Name == "store" {
			in.Store = datastore.NewSnapshot(readObjects(t, f.Data)...)
			continue
		}
		for line := range strings.Lines(string(f.Data)) {
			w := &words{t: t, list: strings.Fields(line)}
			if len(w.list) == 0 || strings.HasPrefix(w.list[0], "#") {
				continue
			}
			switch f.Name {
			case "input":
				switch verb := w.next(); verb {
				case "node":
					in.Node = w.next()
				case "lacks":
					in.Lacking = in.Lacking.With(kernel.TunnelKind(w.next()), true)
				case "met":
					key, err := kernel.ParseWireGuardKey(w.next())
					if err != nil {
						t.Fatal(err)
					}
					in.Met = in.Met.With(key, true)
				case "restarting":
					in.Restarting = true
				default:
					t.Fatalf("unknown input %q", verb)
				}
			case "host":
				readHost(w, host)
			case "pods":
				pods = append(pods, readPod(w, host))
			case "rib":
				readRIB(w, rib)
			case "want":
			default:
				t.Fatalf("unknown file %q", f.Name)
			}
		}
	}
	in.Host, in.RIB, in.Pods = host, rib, ipam.NewAssignments(pods...)
	return in
}

func readObjects(t *testing.T, text []byte) []v1.Object {
	t.Helper()
	var objects []v1.Object
	for line := range strings.Lines(string(text)) {
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		var short struct {
			Kind, Name string
			Labels     map[string]string
			Created    int64
			Spec       any
		}
		if err := yaml.UnmarshalStrict([]byte(line), &short); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		kind, ok := v1.KindByName(short.Kind)
		if !ok {
			t.Fatalf("no kind in %s", line)
		}
		full, err := yaml.Marshal(map[string]any{"spec": short.Spec})
		if err != nil {
			t.Fatal(err)
		}
		o := kind.New()
		if err := yaml.UnmarshalStrict(full, o); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		o.GetObjectKind().SetGroupVersionKind(v1.GroupVersion.WithKind(kind.Name))
		o.SetName(short.Name)
		o.SetLabels(short.Labels)
		o.SetCreationTimestamp(metav1.Unix(short.Created, 0))
		objects = append(objects, o)
	}
	return objects
}

func readHost(w *words, h *kernel.Host) {
	switch verb := w.next(); verb {
	case "release":
		h.Release = w.next()
	case "link":
		l := kernel.Link{Name: w.next(), Index: len(h.Links) + 1, MTU: 1500, Up: true}
		for w.more() {
			switch option := w.next(); option {
			case "mtu":
				l.MTU = w.number()
			case "down":
				l.Up = false
			case "driver":
				l.Driver = w.next()
			case "kind":
				l.Kind = w.next()
			case "alias":
				l.Alias = strings.Join(w.list, " ")
				w.list = nil
			default:
				w.t.Fatalf("unknown option %q of a link", option)
			}
		}
		h.Links[l.Name] = l
	case "addr":
		h.Addrs[kernel.Addr{Link: w.next(), Prefix: netip.MustParsePrefix(w.next())}] = struct{}{}
	case "route":
		k := kernel.RouteKey{Table: kernel.MainTable, Dst: netip.MustParsePrefix(w.next())}
		hops := []kernel.NextHop{{}}
		for w.more() {
			hop := &hops[len(hops)-1]
			switch option := w.next(); option {
			case "via":
				hop.Gateway = netip.MustParseAddr(w.next())
			case "dev":
				hop.Link = w.next()
			case "weight":
				hop.Weight = uint8(w.number())
			case "metric":
				k.Priority = uint32(w.number())
			case "and":
				hops = append(hops, kernel.NextHop{})
			default:
				w.t.Fatalf("unknown option %q of a route", option)
			}
		}
		h.Foreign[k] = kernel.Route{Hops: kernel.Hops(hops...)}
	default:
		w.t.Fatalf("unknown verb %q of a host", verb)
	}
}

func readPod(w *words, h *kernel.Host) ipam.Assignment {
	first, second := w.next(), w.next()
	namespace, name, _ := strings.Cut(first, "/")
	a := ipam.Assignment{
		Handle: ipam.Handle{ContainerID: second, Interface: "eth0"}, Namespace: namespace, Pod: name,
		HostLink: kernel.PodLink(namespace, name, "eth0"),
	}
	if first == "tunnel" {
		a = ipam.Assignment{Handle: ipam.TunnelHandle(second)}
	}
	for w.more() {
		if ip := netip.MustParseAddr(w.next()); ip.Is4() {
			a.IPv4 = ip
		} else {
			a.IPv6 = ip
		}
	}
	if _, ok := h.Links[a.HostLink]; !ok && !a.IsTunnel() {
		h.Links[a.HostLink] = podLink(a)
	}
	return a
}

// podLink returns the link that the CNI plug-in makes for an assignment.
func podLink(a ipam.Assignment) kernel.Link {
	alias := kernel.PodAlias(kernel.Attachment{
		PodLink: a.Interface, ContainerID: a.ContainerID, Namespace: a.Namespace, Pod: a.Pod, IPv4: a.IPv4, IPv6: a.IPv6,
	})
	return kernel.Link{Name: a.HostLink, Kind: "veth", MTU: 1500, Up: true, Alias: alias}
}

func readRIB(w *words, r *bgp.RIB) {
	first := w.next()
	if first == "complete" {
		r.Complete = true
		return
	}
	dst := netip.MustParsePrefix(first)
	p := bgp.LearnedPath{LocalPref: 100}
	for w.more() {
		switch option := w.next(); option {
		case "from":
			p.Peer = netip.MustParseAddr(w.next())
		case "via":
			p.NextHop = netip.MustParseAddr(w.next())
		case "pref":
			p.LocalPref = uint32(w.number())
		default:
			w.t.Fatalf("unknown option %q of a path", option)
		}
	}
	r.Routes[dst] = append(r.Routes[dst], p)
}

// words takes a line apart.
type words struct {
	t    *testing.T
	list []string
}

func (w *words) more() bool { return len(w.list) > 0 }

func (w *words) next() string {
	w.t.Helper()
	if !w.more() {
		w.t.Fatal("a line ends too early")
	}
	first := w.list[0]
	w.list = w.list[1:]
	return first
}

func (w *words) number() int {
	w.t.Helper()
	n, err := strconv.Atoi(w.next())
	if err != nil {
		w.t.Fatal(fmt.Errorf("read a number: %w", err))
	}
	return n
}
