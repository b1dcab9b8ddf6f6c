package agent

import (
	"context"
	"errors"
	"fmt"

	"cairn.network/cairn/agent/calc"
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

// podTable is the MTU of the links of this node's pods. Reading asks what is
// known of the host: its side tells of both, see kernel.Attacher.
type podTable struct {
	attacher    kernel.Attacher
	host        func() *kernel.Host
	assignments func() *ipam.Assignments
}

// name names a pod to people.
func (t podTable) name(h ipam.Handle) string {
	as, _ := t.assignments().Get(h)
	return fmt.Sprintf("MTU of pod %s/%s", as.Namespace, as.Pod)
}

func (t podTable) Read(context.Context) (map[ipam.Handle]int, error) {
	host, have := t.host(), map[ipam.Handle]int{}
	for as := range t.assignments().All() {
		if attached(host, as) {
			have[as.Handle] = host.Links[as.HostLink].MTU
		}
	}
	return have, nil
}

// Write does not delete: links go with their pods.
func (t podTable) Write(ctx context.Context, set map[ipam.Handle]int, _ []ipam.Handle) error {
	all := t.assignments()
	var errs []error
	for h, mtu := range set {
		as, ok := all.Get(h)
		if !ok {
			continue
		}
		if err := t.set(ctx, as, mtu); err != nil {
			errs = append(errs, &kernel.KeyError[ipam.Handle]{Op: "set", Key: h, Err: err})
		}
	}
	return errors.Join(errs...)
}

func (t podTable) set(ctx context.Context, as ipam.Assignment, mtu int) error {
	if as.Netns == "" {
		return errors.New("its network namespace is not known, for the journal of addresses was lost; delete the pod to have it made anew")
	}
	return t.attacher.SetMTU(ctx, kernel.Attachment{
		Netns: as.Netns, PodLink: as.Interface, HostLink: as.HostLink, ContainerID: as.ContainerID,
		Namespace: as.Namespace, Pod: as.Pod, IPv4: as.IPv4, IPv6: as.IPv6, MTU: mtu,
	})
}

// podMTU is the MTU of this node's pods: what the agent was told, else what the
// node's links carry. 0: it is not known yet.
func (a *Agent) podMTU(s *calc.State) int {
	if a.cfg.MTU != 0 || s == nil {
		return a.cfg.MTU
	}
	return s.MTU
}

// mtus keeps what MTU is wanted of whom, as long as nothing of it changes.
type mtus struct {
	assignments *ipam.Assignments
	host        *kernel.Host
	mtu         int

	want immutable.Map[ipam.Handle, int]
}

// next says what MTU the pods that are attached should have, and whether the host
// has to be looked at again.
func (m *mtus) next(all *ipam.Assignments, host *kernel.Host, mtu int) (want immutable.Map[ipam.Handle, int], again bool) {
	if m.assignments == all && m.host == host && m.mtu == mtu {
		return m.want, false
	}
	var e immutable.Editor[ipam.Handle, int]
	for as := range all.All() {
		if mtu != 0 && attached(host, as) {
			e.Set(as.Handle, mtu)
		}
	}
	*m = mtus{all, host, mtu, e.Map()}
	return m.want, true
}
