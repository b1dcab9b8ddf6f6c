package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/lab/fabric"
	"cairn.network/cairn/lab/netns"
	"cairn.network/cairn/lab/process"
)

// announceTime bounds one announcement.
const announceTime = 10 * time.Second

// announcements measures from a new block's blackhole in the kernel of its node to
// the route to it in a kernel in the other rack; and the same between two BIRDs
// side by side, which learn the blackhole from the kernel. The agents of the other
// two nodes rest meanwhile: as many speakers share the processors on either side.
func (b *bench) announcements(ctx context.Context) error {
	return b.resting(ctx, []string{"n2", "n4"}, b.announced)
}

func (b *bench) announced(ctx context.Context) (err error) {
	store, hangUp, err := b.store()
	if err != nil {
		return err
	}
	defer hangUp()
	from, err := b.lab.Netns("n1")
	if err != nil {
		return err
	}
	to, err := b.lab.Netns("n3")
	if err != nil {
		return err
	}
	pair, err := b.birds(ctx)
	defer func() { err = errors.Join(err, pair.stop(context.WithoutCancel(ctx))) }()
	if err != nil {
		return err
	}
	var ours, theirs []float64
	for i := range b.Rounds + 1 {
		dst := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, 255, byte(i * 8)}), 29)
		a, err := travel(ctx, from, to, dst, func() error { return claim(ctx, store, dst) })
		if err != nil {
			return fmt.Errorf("from node to node: %w", err)
		}
		dst = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 243, 255, byte(i * 8)}), 29)
		c, err := travel(ctx, pair.from, pair.to, dst, func() error { return blackhole(pair.from, dst) })
		if err != nil {
			return fmt.Errorf("from BIRD to BIRD: %w", err)
		}
		if i > 0 {
			ours, theirs = append(ours, ms(a)), append(theirs, ms(c))
		}
	}
	b.add(Row{Name: "new block, two nodes: own kernel to the other's", Unit: "ms", Samples: ours, Yardstick: "BIRD 2 to BIRD 2", Compared: theirs, Aim: "at most BIRD's"})
	return nil
}

// claim writes a confirmed block of n1 to the datastore, as its agent would.
func claim(ctx context.Context, store datastore.Store, dst netip.Prefix) error {
	_, err := store.Create(ctx, &v1.IPAMBlock{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1.APIVersion, Kind: "IPAMBlock"},
		ObjectMeta: metav1.ObjectMeta{Name: v1.BlockName(dst)},
		Spec:       v1.IPAMBlockSpec{CIDR: dst.String(), Pool: "default-ipv4", Node: "n1", State: v1.BlockConfirmed},
	})
	return err
}

// travel returns the time between the appearance of a route in one namespace and
// in another, after cause made it appear in the first.
func travel(ctx context.Context, from, to string, dst netip.Prefix, cause func() error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, announceTime)
	defer cancel()
	left, err := appearance(ctx, from, dst)
	if err != nil {
		return 0, err
	}
	arrived, err := appearance(ctx, to, dst)
	if err != nil {
		return 0, err
	}
	if err := cause(); err != nil {
		return 0, err
	}
	var times [2]time.Time
	for i, c := range []<-chan time.Time{left, arrived} {
		select {
		case times[i] = <-c:
		case <-ctx.Done():
			return 0, fmt.Errorf("no route to %s in %s: %w", dst, []string{from, to}[i], ctx.Err())
		}
	}
	return times[1].Sub(times[0]), nil
}

// appearance yields the time at which the kernel tells of a route to dst in the
// namespace held at path. It listens on a thread of its own with real-time
// priority, so that what is measured keeps no processor from it.
func appearance(ctx context.Context, path string, dst netip.Prefix) (<-chan time.Time, error) {
	listening, at := make(chan error, 1), make(chan time.Time, 1)
	go func() {
		err := netns.Do(path, func() error {
			fd, err := listen(ctx)
			if err != nil {
				return err
			}
			listening <- nil
			defer unix.Close(fd)
			if when, ok := await(fd, dst); ok {
				at <- when
			}
			return nil
		})
		if err != nil {
			listening <- err
		}
	}()
	return at, <-listening
}

// await reads until the kernel tells of a route to dst and returns when that was,
// or false when the time is over.
func await(fd int, dst netip.Prefix) (time.Time, bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := read(fd, buf)
		now := time.Now()
		if err != nil {
			return now, false
		}
		if tells(buf[:n], dst) {
			return now, true
		}
	}
}

// listen returns a socket on which the kernel tells of IPv4 routes, and gives the
// calling thread real-time priority. Reading from it fails when ctx's time is over.
func listen(ctx context.Context) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, err
	}
	deadline, _ := ctx.Deadline()
	limit := unix.NsecToTimeval(int64(time.Until(deadline)))
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_IPV4_ROUTE - 1)}),
		unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 10}, 0))
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// tells says whether one of the messages is that of a new route to dst.
func tells(buf []byte, dst netip.Prefix) bool {
	msgs, err := syscall.ParseNetlinkMessage(buf)
	if err != nil {
		return false
	}
	for _, m := range msgs {
		if m.Header.Type != unix.RTM_NEWROUTE || len(m.Data) < unix.SizeofRtMsg || int(m.Data[1]) != dst.Bits() {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			continue
		}
		for _, a := range attrs {
			if a.Attr.Type == unix.RTA_DST && bytes.Equal(a.Value, dst.Addr().AsSlice()) {
				return true
			}
		}
	}
	return false
}

// blackhole adds a blackhole route in a namespace.
func blackhole(path string, dst netip.Prefix) error {
	return netns.Do(path, func() error {
		_, n, err := net.ParseCIDR(dst.String())
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Dst: n, Type: unix.RTN_BLACKHOLE})
	})
}

// birdPair is two BIRDs in namespaces of their own, joined by a link.
type birdPair struct {
	from, to string
	dir      string
	daemons  []process.Process
}

const birdConfig = `log stderr { error, fatal };
router id %[1]s;
protocol device {}
protocol kernel { learn; ipv4 { import all; export all; }; }
protocol bgp peer { local %[1]s as 64512; neighbor %[2]s as 64512; direct; connect delay time 1; connect retry time 1;
  ipv4 { import all; export all; next hop self; }; }
`

// birds starts the pair and waits until they exchange routes. What it returns is
// to be stopped, also after an error.
func (b *bench) birds(ctx context.Context) (*birdPair, error) {
	dir, err := os.MkdirTemp("", "cairn-bench-")
	p := &birdPair{dir: dir}
	if err != nil {
		return p, err
	}
	if p.from, err = b.scratch("bird1"); err != nil {
		return p, err
	}
	if p.to, err = b.scratch("bird2"); err != nil {
		return p, err
	}
	addrs := []string{"192.0.2.1", "192.0.2.2"}
	for i, path := range []string{p.from, p.to} {
		if err := netns.New(path, fabric.Prepare); err != nil {
			return p, err
		}
		conf := filepath.Join(dir, addrs[i]+".conf")
		if err := os.WriteFile(conf, fmt.Appendf(nil, birdConfig, addrs[i], addrs[1-i]), 0o600); err != nil {
			return p, err
		}
	}
	if err := p.join(addrs); err != nil {
		return p, err
	}
	for i, path := range []string{p.from, p.to} {
		base := filepath.Join(dir, addrs[i])
		d, err := process.Start(process.Spec{Path: "/usr/sbin/bird", Args: []string{"-f", "-c", base + ".conf", "-s", base + ".ctl"},
			Env: os.Environ(), Mark: strings.TrimPrefix(b.lab.Mark(), process.MarkVariable+"="), Netns: path, Log: base + ".log"})
		if err != nil {
			return p, err
		}
		p.daemons = append(p.daemons, d)
	}
	// The first route to arrive tells that the session is up.
	dst := netip.MustParsePrefix("10.243.0.0/29")
	ctx, cancel := context.WithTimeout(ctx, 3*announceTime)
	defer cancel()
	arrived, err := appearance(ctx, p.to, dst)
	if err != nil {
		return p, err
	}
	if err := blackhole(p.from, dst); err != nil {
		return p, err
	}
	select {
	case <-arrived:
		return p, nil
	case <-ctx.Done():
		return p, fmt.Errorf("the two BIRDs exchange no routes: %w", ctx.Err())
	}
}

// join links the two namespaces.
func (p *birdPair) join(addrs []string) error {
	peer, err := vnetns.GetFromPath(p.to)
	if err != nil {
		return err
	}
	defer peer.Close()
	up := func(name, addr string) error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr + "/24")
		if err != nil {
			return err
		}
		return errors.Join(netlink.AddrAdd(l, a), netlink.LinkSetUp(l))
	}
	err = netns.Do(p.from, func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(peer)}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return up("eth0", addrs[0])
	})
	if err != nil {
		return err
	}
	return netns.Do(p.to, func() error { return up("eth0", addrs[1]) })
}

func (p *birdPair) stop(ctx context.Context) error {
	var errs []error
	for _, d := range p.daemons {
		errs = append(errs, d.Stop(ctx, time.Second))
	}
	return errors.Join(append(errs, netns.Delete(p.from), netns.Delete(p.to), os.RemoveAll(p.dir))...)
}
