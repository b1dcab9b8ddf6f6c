//go:build linux

package linux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	vishnet "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// NewAttacher returns what makes and removes pods' links. It needs
// CAP_SYS_ADMIN too, to enter a pod's network namespace.
func NewAttacher(opts ...Option) kernel.Attacher { return attacher{configure(opts)} }

type attacher struct{ config }

func (t attacher) Attach(ctx context.Context, a kernel.Attachment) (mac string, err error) {
	if err := a.Validate(); err != nil {
		return "", fmt.Errorf("attach pod %s/%s: %w", a.Namespace, a.Pod, err)
	}
	if mac, err = t.attach(ctx, a); err != nil {
		return "", fmt.Errorf("attach pod %s/%s: %w", a.Namespace, a.Pod, err)
	}
	return mac, nil
}

func (t attacher) attach(ctx context.Context, a kernel.Attachment) (mac string, err error) {
	pod, err := t.openPod(a)
	if err != nil {
		return "", err
	}
	defer pod.close()
	host, err := t.handle()
	if err != nil {
		return "", err
	}
	defer host.Close()

	hostLink, err := pair(host, pod, a)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil { // both ends vanish together
			err = errors.Join(err, deleteLink(host, hostLink))
		}
	}()
	if mac, err = pod.configure(ctx, a); err != nil {
		return "", err
	}
	if err := t.configureHost(host, hostLink, a); err != nil {
		return "", err
	}
	return mac, ctx.Err()
}

// pair returns the host's end of the pod's link: the one that is there if it is
// this attachment's, or a new one in place of whatever has its name.
func pair(host *vishnet.Handle, pod *podSide, a kernel.Attachment) (vishnet.Link, error) {
	inPod, err := pod.link(a.PodLink)
	if err != nil {
		return nil, err
	}
	old, err := findLink(host, a.HostLink)
	if err != nil {
		return nil, err
	}
	if old != nil {
		joined := inPod != nil && inPod.Attrs().ParentIndex == old.Attrs().Index && old.Attrs().ParentIndex == inPod.Attrs().Index
		if joined && old.Type() == "veth" && old.Attrs().Alias == kernel.PodAlias(a) {
			return old, nil
		}
		if err := deleteLink(host, old); err != nil {
			return nil, fmt.Errorf("delete the link of that name: %w", err)
		}
		if joined {
			inPod = nil
		}
	}
	if inPod != nil {
		return nil, fmt.Errorf("the pod has a link %s already", a.PodLink)
	}
	return newPair(host, pod, a)
}

// newPair makes the pair of links, the pod's end in its namespace from the
// start, so that no name on the host is taken for a moment.
func newPair(host *vishnet.Handle, pod *podSide, a kernel.Attachment) (vishnet.Link, error) {
	mac, err := net.ParseMAC(kernel.HostMAC)
	if err != nil {
		return nil, err
	}
	attrs := vishnet.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = a.HostLink, a.MTU, mac
	veth := &vishnet.Veth{LinkAttrs: attrs, PeerName: a.PodLink, PeerMTU: uint32(a.MTU), PeerNamespace: vishnet.NsFd(pod.file.Fd())}
	if err := host.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("make link %s: %w", a.HostLink, refusal(err))
	}
	// The mark comes at once: without it nobody can tell whose the link is.
	if err := host.LinkSetAlias(veth, kernel.PodAlias(a)); err != nil {
		return nil, errors.Join(fmt.Errorf("mark link %s: %w", a.HostLink, refusal(err)), deleteLink(host, veth))
	}
	return veth, nil
}

// configureHost sets up the host's end. It comes last: from then on packets flow.
func (t attacher) configureHost(host *vishnet.Handle, l vishnet.Link, a kernel.Attachment) error {
	if l.Attrs().MTU != a.MTU {
		if err := host.LinkSetMTU(l, a.MTU); err != nil {
			return fmt.Errorf("set MTU of %s: %w", a.HostLink, refusal(err))
		}
	}
	if a.IPv6.IsValid() {
		err := t.in(func() error { return setSysctl(kernel.Sysctl("net/ipv6/conf/"+a.HostLink+"/disable_ipv6"), "0") })
		if err != nil {
			return fmt.Errorf("enable IPv6 on %s: %w", a.HostLink, err)
		}
		if err := host.AddrReplace(l, hostGateway()); err != nil {
			return fmt.Errorf("set address %s of %s: %w", kernel.PodGateway6, a.HostLink, refusal(err))
		}
	}
	if err := host.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", a.HostLink, refusal(err))
	}
	return nil
}

// hostGateway is the address by which a pod knows its host.
func hostGateway() *vishnet.Addr {
	return &vishnet.Addr{
		IPNet: &net.IPNet{IP: kernel.PodGateway6.AsSlice(), Mask: net.CIDRMask(64, 128)},
		Flags: unix.IFA_F_NODAD, Scope: unix.RT_SCOPE_LINK,
	}
}

func (t attacher) Detach(ctx context.Context, a kernel.Attachment) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("detach pod %s/%s: %w", a.Namespace, a.Pod, err)
	}
	host, err := t.handle()
	if err != nil {
		return fmt.Errorf("detach pod %s/%s: %w", a.Namespace, a.Pod, err)
	}
	defer host.Close()
	l, err := findLink(host, a.HostLink)
	if err == nil && l != nil {
		owner, isPod := kernel.ParsePodAlias(l.Attrs().Alias)
		if isPod && owner.ContainerID == a.ContainerID {
			err = deleteLink(host, l)
		}
	}
	if err != nil {
		return fmt.Errorf("detach pod %s/%s: %w", a.Namespace, a.Pod, err)
	}
	return nil
}

func (t attacher) SetMTU(ctx context.Context, a kernel.Attachment) error {
	if err := t.setMTU(ctx, a); err != nil {
		return fmt.Errorf("set MTU of pod %s/%s to %d: %w", a.Namespace, a.Pod, a.MTU, err)
	}
	return nil
}

func (t attacher) setMTU(ctx context.Context, a kernel.Attachment) error {
	if err := cmp.Or(ctx.Err(), a.Validate()); err != nil {
		return err
	}
	pod, err := t.openPod(a)
	if errors.Is(err, kernel.ErrPermission) {
		return fmt.Errorf("%w; the process needs CAP_SYS_ADMIN for that", err)
	}
	if err != nil {
		return err
	}
	defer pod.close()
	host, err := t.handle()
	if err != nil {
		return err
	}
	defer host.Close()
	l, err := findLink(host, a.HostLink)
	if err != nil {
		return err
	}
	inPod, err := pod.link(a.PodLink)
	if err != nil {
		return err
	}
	if l == nil || inPod == nil || l.Attrs().Alias != kernel.PodAlias(a) || inPod.Attrs().ParentIndex != l.Attrs().Index {
		return fmt.Errorf("link %s of this pod: %w", a.HostLink, unix.ENODEV)
	}
	return resize(host, l, pod, inPod, a.MTU)
}

// resize sets the MTU of both ends, of the pod's first if it shrinks.
func resize(host *vishnet.Handle, l vishnet.Link, pod *podSide, inPod vishnet.Link, mtu int) error {
	was := l.Attrs().MTU
	ends := []struct {
		name   string
		handle *vishnet.Handle
		link   vishnet.Link
	}{{"pod", pod.handle, inPod}, {"host", host, l}}
	if mtu > was {
		slices.Reverse(ends)
	}
	for i, end := range ends {
		if err := end.handle.LinkSetMTU(end.link, mtu); err != nil {
			err = fmt.Errorf("the %s's side: %w", end.name, refusal(err))
			if i > 0 {
				err = errors.Join(err, ends[0].handle.LinkSetMTU(ends[0].link, was))
			}
			return err
		}
	}
	return nil
}

func (t attacher) Check(ctx context.Context, a kernel.Attachment) error {
	if err := t.check(ctx, a); err != nil {
		return fmt.Errorf("check pod %s/%s: %w", a.Namespace, a.Pod, err)
	}
	return nil
}

func (t attacher) check(ctx context.Context, a kernel.Attachment) error {
	if err := a.Validate(); err != nil {
		return err
	}
	pod, err := t.openPod(a)
	if err != nil {
		return err
	}
	defer pod.close()
	host, err := t.handle()
	if err != nil {
		return err
	}
	defer host.Close()
	l, err := findLink(host, a.HostLink)
	if err != nil {
		return err
	}
	if l == nil {
		return fmt.Errorf("link %s: %w", a.HostLink, unix.ENODEV)
	}
	var wrong []string
	differs := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if l.Attrs().Alias != kernel.PodAlias(a) {
		differs("alias of %s is %q, want %q", a.HostLink, l.Attrs().Alias, kernel.PodAlias(a))
	}
	checkLink(l, a.MTU, differs)
	if mac := l.Attrs().HardwareAddr.String(); mac != kernel.HostMAC {
		differs("MAC address of %s is %s, want %s", a.HostLink, mac, kernel.HostMAC)
	}
	if a.IPv6.IsValid() {
		if err := checkAddrs(host, l, []*vishnet.Addr{hostGateway()}, differs); err != nil {
			return err
		}
	}
	if err := pod.check(ctx, a, l, differs); err != nil {
		return err
	}
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "; "))
	}
	return nil
}

// findLink returns the link with this name, or nil if there is none.
func findLink(h *vishnet.Handle, name string) (vishnet.Link, error) {
	l, err := h.LinkByName(name)
	if _, none := errors.AsType[vishnet.LinkNotFoundError](err); none {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", name, refusal(err))
	}
	return l, nil
}

// deleteLink deletes a link that may be gone already.
func deleteLink(h *vishnet.Handle, l vishnet.Link) error {
	if err := h.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link %s: %w", l.Attrs().Name, refusal(err))
	}
	return nil
}

func checkLink(l vishnet.Link, mtu int, differs func(string, ...any)) {
	attrs := l.Attrs()
	if attrs.Flags&net.FlagUp == 0 {
		differs("link %s is down", attrs.Name)
	}
	if attrs.MTU != mtu {
		differs("MTU of %s is %d, want %d", attrs.Name, attrs.MTU, mtu)
	}
}

// checkAddrs names the addresses that the link lacks.
func checkAddrs(h *vishnet.Handle, l vishnet.Link, want []*vishnet.Addr, differs func(string, ...any)) error {
	have, err := whole(func() ([]vishnet.Addr, error) { return h.AddrList(l, unix.AF_UNSPEC) })
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, refusal(err))
	}
	for _, w := range want {
		if !hasAddr(have, w) {
			differs("address %s of %s is missing", w.IPNet, l.Attrs().Name)
		}
	}
	return nil
}

func hasAddr(have []vishnet.Addr, want *vishnet.Addr) bool {
	for _, h := range have {
		if h.IPNet.String() == want.IPNet.String() {
			return true
		}
	}
	return false
}
