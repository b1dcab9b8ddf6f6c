package agent

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

// storeTime bounds one read or write of a table in the datastore.
const storeTime = 10 * time.Second

// nodeAddrs are the addresses of a Node, as its spec has them.
type nodeAddrs struct{ ipv4, ipv6 string }

// wantedAddrs returns the addresses that the own Node should have: those the
// agent was told, else those it has.
func (a *Agent) wantedAddrs(have nodeAddrs) nodeAddrs {
	want := have
	if p := a.cfg.IPv4; p.IsValid() {
		want.ipv4 = p.String()
	}
	if p := a.cfg.IPv6; p.IsValid() {
		want.ipv6 = p.String()
	}
	return want
}

func addrsOf(n *v1.Node) nodeAddrs {
	if n.Spec.BGP == nil {
		return nodeAddrs{}
	}
	return nodeAddrs{n.Spec.BGP.IPv4Address, n.Spec.BGP.IPv6Address}
}

// nodeFields are the fields of the own Node that the agent writes.
type nodeFields struct {
	nodeAddrs
	details
}

func fieldsOf(n *v1.Node) nodeFields { return nodeFields{addrsOf(n), detailsOf(n)} }

// nodeTable is the agent's fields of the own Node in the datastore. Reading asks
// the mirror. The Node is never deleted.
type nodeTable struct {
	store    datastore.Store
	name     string
	snapshot func() *datastore.Snapshot
	wanted   func(have nodeFields) nodeFields
}

func (t nodeTable) Read(context.Context) (map[struct{}]nodeFields, error) {
	n, ok := datastore.Get[*v1.Node](t.snapshot(), "", t.name)
	if !ok {
		return nil, nil
	}
	return map[struct{}]nodeFields{{}: fieldsOf(n)}, nil
}

func (t nodeTable) Write(ctx context.Context, set map[struct{}]nodeFields, _ []struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	for _, want := range set {
		node := v1.Node{TypeMeta: typeMeta("Node"), ObjectMeta: metav1.ObjectMeta{Name: t.name}}
		err := put(ctx, t.store, &node, func(n *v1.Node) error {
			if n.ResourceVersion != "" { // it is there, if only since a moment ago
				want = t.wanted(fieldsOf(n))
			}
			if fieldsOf(n) == want {
				return datastore.ErrAbort
			}
			if n.Spec.BGP == nil {
				n.Spec.BGP = &v1.NodeBGP{}
			}
			n.Spec.BGP.IPv4Address, n.Spec.BGP.IPv6Address = want.ipv4, want.ipv6
			want.writeTo(n)
			return nil
		})
		if err != nil && !errors.Is(err, datastore.ErrUnavailable) {
			err = &kernel.KeyError[struct{}]{Op: "set", Err: err} // the rest may do
		}
		return err
	}
	return nil
}

// endpoint is what a WorkloadEndpoint says of where a pod is, comparable.
type endpoint struct {
	pod, containerID, iface, link string
	networks                      string // joined by blanks
}

// handle returns the user of the endpoint's addresses.
func (e endpoint) handle() ipam.Handle {
	return ipam.Handle{ContainerID: e.containerID, Interface: e.iface}
}

// wantedEndpoints returns the endpoints of the pods that are attached here. They are
// right only after the recovery.
func wantedEndpoints(host *kernel.Host, pods *ipam.Assignments) map[datastore.Key]endpoint {
	want := map[datastore.Key]endpoint{}
	for as := range pods.All() {
		if !attached(host, as) {
			continue
		}
		var networks []string
		for _, ip := range as.Addrs() {
			networks = append(networks, netip.PrefixFrom(ip, ip.BitLen()).String())
		}
		namespace := as.Namespace
		if namespace == "" {
			namespace = metav1.NamespaceDefault
		}
		key := datastore.Key{Kind: "WorkloadEndpoint", Namespace: namespace, Name: as.Pod + "-" + as.Interface}
		want[key] = endpoint{as.Pod, as.ContainerID, as.Interface, as.HostLink, strings.Join(networks, " ")}
	}
	return want
}

// endpointTable is the WorkloadEndpoints of one node in the datastore. What selects
// a pod (labels, service account, named ports) is written with the first endpoint of
// a container, as the runtime told it; from then on it is the user's.
//
// Reading asks the mirror: it holds those of all nodes anyway, and each write looks at
// what is there.
type endpointTable struct {
	store    datastore.Store
	node     string
	snapshot func() *datastore.Snapshot
	told     func(ipam.Handle) (ipam.Assignment, bool)
}

func (t endpointTable) Read(context.Context) (map[datastore.Key]endpoint, error) {
	have := map[datastore.Key]endpoint{}
	for w := range datastore.All[*v1.WorkloadEndpoint](t.snapshot()) {
		if w.Spec.Node == t.node {
			have[datastore.KeyOf(w)] = endpointOf(w)
		}
	}
	return have, nil
}

func endpointOf(w *v1.WorkloadEndpoint) endpoint {
	return endpoint{w.Spec.Pod, w.Spec.ContainerID, w.Spec.Endpoint, w.Spec.InterfaceName, strings.Join(w.Spec.IPNetworks, " ")}
}

func (t endpointTable) Write(ctx context.Context, set map[datastore.Key]endpoint, del []datastore.Key) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	var errs []error
	for _, key := range slices.SortedFunc(maps.Keys(set), compareKeys) {
		if err := t.put(ctx, key, set[key]); err != nil {
			if errors.Is(err, datastore.ErrUnavailable) {
				return err // the others would only wait for the same
			}
			errs = append(errs, &kernel.KeyError[datastore.Key]{Op: "set", Key: key, Err: err})
		}
	}
	for _, key := range del {
		if err := t.delete(ctx, key); err != nil {
			if errors.Is(err, datastore.ErrUnavailable) {
				return err
			}
			errs = append(errs, &kernel.KeyError[datastore.Key]{Op: "delete", Key: key, Err: err})
		}
	}
	return errors.Join(errs...)
}

func (t endpointTable) put(ctx context.Context, key datastore.Key, want endpoint) error {
	w := v1.WorkloadEndpoint{TypeMeta: typeMeta(key.Kind), ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	return put(ctx, t.store, &w, func(w *v1.WorkloadEndpoint) error {
		if w.Spec.Node == t.node && endpointOf(w) == want {
			return datastore.ErrAbort
		}
		if w.Spec.Node != t.node || endpointOf(w).handle() != want.handle() {
			t.describe(w, want.handle())
		}
		s := &w.Spec
		s.Node, s.Pod, s.ContainerID, s.Endpoint = t.node, want.pod, want.containerID, want.iface
		s.InterfaceName, s.IPNetworks = want.link, strings.Fields(want.networks)
		return nil
	})
}

// describe writes what the runtime told of a container, in the place of what
// another's endpoint of that name said.
func (t endpointTable) describe(w *v1.WorkloadEndpoint, h ipam.Handle) {
	as, _ := t.told(h) // one that is gone by now takes its endpoint with it
	w.Labels, w.Annotations, w.Spec = maps.Clone(as.Labels), nil, v1.WorkloadEndpointSpec{ServiceAccountName: as.ServiceAccount}
	for _, p := range as.Ports {
		w.Spec.Ports = append(w.Spec.Ports, v1.NamedPort{Name: p.Name, Protocol: v1.Protocol(p.Protocol), Port: int32(p.Port)})
	}
}

// delete removes the endpoint unless it is another node's by now.
func (t endpointTable) delete(ctx context.Context, key datastore.Key) error {
	o, err := t.store.Get(ctx, key)
	if err == nil {
		if w, ok := o.(*v1.WorkloadEndpoint); ok && w.Spec.Node == t.node {
			err = t.store.Delete(ctx, key, w.ResourceVersion)
		}
	}
	if errors.Is(err, datastore.ErrNotFound) {
		return nil
	}
	return err
}

// statusText is a NodeStatus's status as JSON without its time, and the time by
// which it is to be written again.
type statusText struct {
	text string
	beat int64
}

// statusTable is the own NodeStatus in the datastore. What an earlier agent wrote
// does not count as there.
type statusTable struct {
	store datastore.Store
	name  string
}

func (t statusTable) Read(context.Context) (map[struct{}]statusText, error) { return nil, nil }

func (t statusTable) Write(ctx context.Context, set map[struct{}]statusText, _ []struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	for _, want := range set {
		s := v1.NodeStatus{TypeMeta: typeMeta("NodeStatus"), ObjectMeta: metav1.ObjectMeta{Name: t.name}}
		return put(ctx, t.store, &s, func(s *v1.NodeStatus) error {
			s.Status = v1.NodeStatusStatus{}
			if err := json.Unmarshal([]byte(want.text), &s.Status); err != nil {
				return err
			}
			s.Status.UpdatedAt = metav1.Now()
			return nil
		})
	}
	return nil
}

// put lets change alter the object as it is in the store, or creates it from o.
func put[T v1.Object](ctx context.Context, s datastore.Store, o T, change func(T) error) error {
	key := datastore.KeyOf(o)
	_, err := datastore.Update(ctx, s, key, change)
	if !errors.Is(err, datastore.ErrNotFound) {
		return err
	}
	if err := change(o); err != nil && !errors.Is(err, datastore.ErrAbort) {
		return err
	}
	if _, err = s.Create(ctx, o); errors.Is(err, datastore.ErrExists) {
		_, err = datastore.Update(ctx, s, key, change)
	}
	return err
}

func typeMeta(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: kind}
}

func compareKeys(a, b datastore.Key) int {
	return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
}
