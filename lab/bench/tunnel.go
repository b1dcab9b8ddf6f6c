package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/netns"
	"cairn.network/cairn/lab/topology"
)

// tunnelTime bounds the wait for a tunnel of Cairn's to be there.
const tunnelTime = 30 * time.Second

// handLink is the name of a tunnel device made by hand, and handNet the subnet on
// the inside of it.
const handLink = "hand"

var handNet = netip.MustParsePrefix("192.0.2.0/24") // RFC 5737

// tunnelled is a kind of tunnel to measure.
type tunnelled struct {
	kind     kernel.TunnelKind
	topology string // by name
	mtu      int    // that Cairn gives the pods: the hand-made device's too
	// link returns a device by hand to one other node.
	link func(local, remote netip.Addr) netlink.Link
}

var vxlanTraffic = tunnelled{kernel.VXLAN, "vxlan", 1450, func(local, remote netip.Addr) netlink.Link {
	return &netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: handLink, MTU: 1450, TxQLen: -1},
		VxlanId:   77, Port: 4789, SrcAddr: local.AsSlice(), Group: remote.AsSlice(),
	}
}}

var ipipTraffic = tunnelled{kernel.IPIP, "ipip", 1480, func(local, remote netip.Addr) netlink.Link {
	return &netlink.Iptun{
		LinkAttrs: netlink.LinkAttrs{Name: handLink, MTU: 1480, TxQLen: -1},
		Local:     local.AsSlice(), Remote: remote.AsSlice(),
	}
}}

// tunnels measures throughput and round-trip time between pods of two racks through
// a tunnel of Cairn's, and in turn through one made by hand with the same MTU.
func (b *bench) tunnels(t tunnelled) func(context.Context) error {
	return func(ctx context.Context) (err error) {
		if has, err := b.makes(t); err != nil || !has {
			b.Progress(fmt.Sprintf("this kernel has no %s: left out", t.kind))
			return err
		}
		file, err := topology.Named(t.topology)
		if err != nil {
			return err
		}
		topo, err := topology.Parse(file)
		if err != nil {
			return err
		}
		topo.Name = "bench-" + t.topology
		l, err := lab.Up(ctx, topo, lab.Options{Root: b.Root, Bin: b.Bin, Progress: func(string) {}})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, lab.Down(context.WithoutCancel(ctx), b.Root, topo.Name)) }()
		client, err := l.AddPod(ctx, lab.Pod{Namespace: "bench", Name: "client", Node: "n1"})
		if err != nil {
			return err
		}
		server, err := l.AddPod(ctx, lab.Pod{Namespace: "bench", Name: "server", Node: "n3"})
		if err != nil {
			return err
		}
		p := &path{client: client, server: server}
		for range min(trafficRounds, b.Rounds) {
			if err := sound(ctx, l); err != nil {
				return err
			}
			if err := p.settled(0); err != nil {
				return fmt.Errorf("with Cairn: %w", err)
			}
			if err := b.tunnelByHand(ctx, l, t, p); err != nil {
				return fmt.Errorf("with a tunnel by hand: %w", err)
			}
		}
		b.addPath(fmt.Sprintf("pod to pod across racks by %s", t.kind), fmt.Sprintf("%s by hand, MTU %d", t.kind, t.mtu), p)
		return nil
	}
}

// sound waits until packets travel in the tunnel, and the agents are done with their
// start: every session is Established, and what they report is in the datastore.
func sound(ctx context.Context, l *lab.Lab) error {
	ctx, cancel := context.WithTimeoutCause(ctx, tunnelTime, fmt.Errorf("took longer than %s", tunnelTime))
	defer cancel()
	r, err := l.CheckEncap(ctx)
	if err == nil && len(r.Failed()) > 0 {
		err = fmt.Errorf("packets do not travel as they should: %+v", r.Failed())
	}
	if err != nil {
		return err
	}
	if err := l.WaitBGP(ctx, nodes...); err != nil {
		return err
	}
	return l.WaitReported(ctx)
}

// makes says whether this kernel has the kind of tunnel.
func (b *bench) makes(t tunnelled) (bool, error) {
	path, err := b.scratch("kind")
	if err != nil {
		return false, err
	}
	local, remote := handNet.Addr().Next(), handNet.Addr().Next().Next()
	err = errors.Join(netns.New(path, func() error { return netlink.LinkAdd(t.link(local, remote)) }), netns.Delete(path))
	if errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	return err == nil, err
}

// tunnelByHand removes all that is Cairn's on the two nodes, puts a tunnel and
// routes by hand in its place, measures, and takes that back.
func (b *bench) tunnelByHand(ctx context.Context, l *lab.Lab, t tunnelled, p *path) (err error) {
	ends := []struct {
		node, peer string
		own, other lab.Pod
		inside     [2]netip.Addr // of this end and the other
	}{
		{"n1", "n3", p.client, p.server, [2]netip.Addr{handNet.Addr().Next(), handNet.Addr().Next().Next()}},
		{"n3", "n1", p.server, p.client, [2]netip.Addr{handNet.Addr().Next().Next(), handNet.Addr().Next()}},
	}
	for _, e := range ends {
		if err := clear(ctx, l, e.node); err != nil {
			return err
		}
		path, err := l.Netns(e.node)
		if err != nil {
			return err
		}
		node, _ := l.Topology.Node(e.node)
		peer, _ := l.Topology.Node(e.peer)
		link := t.link(node.Addrs[0].Addr(), peer.Addrs[0].Addr())
		defer func() {
			err = errors.Join(err,
				netns.Do(path, func() error { return withdraw(link, e.own) }),
				l.Start(ctx, e.node), l.WaitAgents(ctx, e.node))
		}()
		if err := netns.Do(path, func() error { return connect(link, e.own, e.other, e.inside) }); err != nil {
			return fmt.Errorf("on %s: %w", e.node, err)
		}
	}
	return p.settled(1)
}

// connect adds the link in the calling thread's namespace, a route by it to the
// other pod, and one to the own.
func connect(link netlink.Link, own, other lab.Pod, inside [2]netip.Addr) error {
	if err := netlink.LinkAdd(link); err != nil {
		return err
	}
	a := &netlink.Addr{IPNet: &net.IPNet{IP: inside[0].AsSlice(), Mask: net.CIDRMask(handNet.Bits(), 32)}}
	if err := errors.Join(netlink.AddrAdd(link, a), netlink.LinkSetUp(link)); err != nil {
		return err
	}
	local, err := static(own.Addrs[0], hop{link: kernel.PodLink(own.Namespace, own.Name, "eth0")})
	if err != nil {
		return err
	}
	far, err := static(other.Addrs[0], hop{via: inside[1].String()})
	if err != nil {
		return err
	}
	return errors.Join(netlink.RouteAdd(local), netlink.RouteAdd(far))
}

// withdraw takes back what connect did.
func withdraw(link netlink.Link, own lab.Pod) error {
	local, err := static(own.Addrs[0], hop{link: kernel.PodLink(own.Namespace, own.Name, "eth0")})
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkDel(link), netlink.RouteDel(local))
}

// clear ends a node's agent and removes all that it made.
func clear(ctx context.Context, l *lab.Lab, node string) error {
	if err := l.Kill(ctx, node); err != nil {
		return err
	}
	cmd, err := l.Command(ctx, node, "cairn", "agent", "--node-name", node, "--cleanup")
	if err != nil {
		return err
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("clean up %s: %w: %s", node, err, strings.TrimSpace(out.String()))
	}
	return nil
}
