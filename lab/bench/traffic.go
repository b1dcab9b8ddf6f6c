package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	goruntime "runtime"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/netns"
)

// Amounts of one sample.
const (
	streamTime    = time.Second
	exchanges     = 20000
	trafficRounds = 15 // single samples differ by a tenth on a shared machine
	trafficPort   = 7001
)

// traffic measures throughput and round-trip time between pods of two racks,
// with Cairn running, and in turn with nothing but routes written by hand in the
// same namespaces.
func (b *bench) traffic(ctx context.Context) error {
	client, err := b.lab.AddPod(ctx, lab.Pod{Namespace: "bench", Name: "client", Node: "n1"})
	if err != nil {
		return err
	}
	server, err := b.lab.AddPod(ctx, lab.Pod{Namespace: "bench", Name: "server", Node: "n3"})
	if err != nil {
		return err
	}
	p := &path{client: client, server: server}
	for range trafficRounds {
		if err := p.settled(0); err != nil {
			return fmt.Errorf("with Cairn: %w", err)
		}
		err := b.byHand(ctx, client, server, func() error { return p.settled(1) })
		if err != nil {
			return fmt.Errorf("with routes by hand: %w", err)
		}
	}
	b.addPath("pod to pod across racks", "routes by hand", p)
	return nil
}

// path is the way between two pods, and what was measured of it: with Cairn, and
// with the yardstick in its place.
type path struct {
	client, server lab.Pod
	speed, trip    [2][]float64 // Gbit/s, µs
}

func (p *path) measure() (gbits, micros float64, err error) {
	dst := p.server.Addrs[0]
	if gbits, err = stream(p.client.Netns, p.server.Netns, dst); err != nil {
		return 0, 0, err
	}
	micros, err = roundTrip(p.client.Netns, p.server.Netns, dst)
	return gbits, micros, err
}

// settled measures one side. What runs just after a switch-over is slower,
// whichever it is: each side has one sample that does not count.
func (p *path) settled(side int) error {
	if _, _, err := p.measure(); err != nil {
		return err
	}
	gbits, micros, err := p.measure()
	p.speed[side], p.trip[side] = append(p.speed[side], gbits), append(p.trip[side], micros)
	return err
}

func (b *bench) addPath(name, yardstick string, p *path) {
	b.add(Row{Name: name + ", TCP throughput", Unit: "Gbit/s", Samples: p.speed[0], Yardstick: yardstick, Compared: p.speed[1], Aim: "within 3 %"})
	b.add(Row{Name: name + ", TCP round trip", Unit: "µs", Samples: p.trip[0], Yardstick: yardstick, Compared: p.trip[1], Aim: "within 3 %"})
}

// hosts are those that a packet between the two pods passes.
var hosts = []string{"n1", "tor", "n3"}

// byHand stops Cairn on the way between two pods, puts hand-written routes in the
// place of its own, does what it is asked to, and takes that back.
func (b *bench) byHand(ctx context.Context, client, server lab.Pod, do func() error) (err error) {
	for _, h := range hosts {
		if err := b.lab.Kill(ctx, h); err != nil {
			return err
		}
	}
	defer func() {
		for _, h := range hosts {
			err = errors.Join(err, b.lab.Start(ctx, h))
		}
		err = errors.Join(err, b.lab.WaitBGP(ctx, nodes...))
	}()
	a, z := client.Addrs[0], server.Addrs[0]
	for h, routes := range map[string]map[netip.Addr]hop{
		"n1":  {a: {link: kernel.PodLink("bench", "client", "eth0")}, z: {via: "10.101.1.1"}},
		"tor": {a: {via: "10.101.1.11"}, z: {via: "10.101.2.11"}},
		"n3":  {a: {via: "10.101.2.1"}, z: {link: kernel.PodLink("bench", "server", "eth0")}},
	} {
		path, err := b.lab.Netns(h)
		if err != nil {
			return err
		}
		if err := netns.Do(path, func() error { return replaceOurs(routes) }); err != nil {
			return fmt.Errorf("write routes on %s: %w", h, err)
		}
		defer func() { err = errors.Join(err, netns.Do(path, func() error { return deleteStatic(routes) })) }()
	}
	return do()
}

// hop is where a hand-written route leads.
type hop struct{ link, via string }

// replaceOurs removes Cairn's IPv4 routes and adds these instead.
func replaceOurs(routes map[netip.Addr]hop) error {
	ours, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: kernel.RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return err
	}
	for _, r := range ours {
		if err := netlink.RouteDel(&r); err != nil {
			return err
		}
	}
	for dst, h := range routes {
		r, err := static(dst, h)
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(r); err != nil {
			return err
		}
	}
	return nil
}

func deleteStatic(routes map[netip.Addr]hop) error {
	var errs []error
	for dst, h := range routes {
		r, err := static(dst, h)
		if err == nil {
			err = netlink.RouteDel(r)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func static(dst netip.Addr, h hop) (*netlink.Route, error) {
	r := &netlink.Route{Dst: &net.IPNet{IP: dst.AsSlice(), Mask: net.CIDRMask(32, 32)}, Protocol: unix.RTPROT_STATIC}
	if h.via != "" {
		r.Gw = net.ParseIP(h.via)
		return r, nil
	}
	l, err := netlink.LinkByName(h.link)
	if err != nil {
		return nil, err
	}
	r.LinkIndex, r.Scope = l.Attrs().Index, netlink.SCOPE_LINK
	return r, nil
}

// pinned runs f on a thread inside a namespace and on one processor: round trips
// between unpinned threads depend on where the scheduler puts them.
func pinned(path string, cpu int, f func() error) error {
	return netns.Do(path, func() error {
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("pin to processor %d: %w", cpu, err)
		}
		return f()
	})
}

// pair connects a client to a server by blocking sockets, so that the Go
// scheduler has no part in what is measured, and runs one side each.
func pair(client, server string, dst netip.Addr, clientDo, serverDo func(fd int) error) error {
	last := goruntime.NumCPU() - 1
	addr := &unix.SockaddrInet4{Port: trafficPort, Addr: dst.As4()}
	listening, served := make(chan error, 1), make(chan error, 1)
	go func() {
		served <- pinned(server, last, func() error {
			l, err := listenTo(dst, 1)
			listening <- err
			if err != nil {
				return err
			}
			defer unix.Close(l)
			fd, err := whole(func() (int, error) {
				fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
				return fd, err
			})
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return run(fd, serverDo)
		})
	}()
	if err := <-listening; err != nil {
		return err
	}
	err := pinned(client, 0, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, addr); err != nil {
			return fmt.Errorf("connect to %s: %w", dst, err)
		}
		return run(fd, clientDo)
	})
	if err != nil {
		return err
	}
	return <-served
}

// listenTo returns a socket that takes connections to the port of the traffic.
func listenTo(addr netip.Addr, backlog int) (int, error) {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = errors.Join(unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(l, &unix.SockaddrInet4{Port: trafficPort, Addr: addr.As4()}), unix.Listen(l, backlog))
	if err != nil {
		return -1, errors.Join(err, unix.Close(l))
	}
	return l, nil
}

// whole repeats a call that a signal of Go's scheduler interrupted.
func whole(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != unix.EINTR {
			return n, err
		}
	}
}

func read(fd int, buf []byte) (int, error) {
	return whole(func() (int, error) { return unix.Read(fd, buf) })
}

func write(fd int, buf []byte) (int, error) {
	return whole(func() (int, error) { return unix.Write(fd, buf) })
}

// run sets the socket's bounds and runs one side.
func run(fd int, do func(int) error) error {
	limit := unix.Timeval{Sec: 10}
	err := errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit))
	if err != nil {
		return err
	}
	return do(fd)
}

// stream returns the throughput of one TCP connection in Gbit/s.
func stream(client, server string, dst netip.Addr) (float64, error) {
	var bytes int
	var took time.Duration
	err := pair(client, server, dst,
		func(fd int) error {
			buf := make([]byte, 128<<10)
			for start := time.Now(); time.Since(start) < streamTime; {
				if _, err := write(fd, buf); err != nil {
					return err
				}
			}
			return unix.Shutdown(fd, unix.SHUT_WR)
		},
		func(fd int) error {
			buf := make([]byte, 128<<10)
			for start := time.Now(); ; took = time.Since(start) {
				n, err := read(fd, buf)
				if err != nil || n == 0 {
					return err
				}
				bytes += n
			}
		})
	return float64(bytes) * 8 / took.Seconds() / 1e9, err
}

// roundTrip returns the mean time of a request of one byte and its answer, in
// microseconds.
func roundTrip(client, server string, dst netip.Addr) (float64, error) {
	var took time.Duration
	err := pair(client, server, dst,
		func(fd int) error {
			buf := make([]byte, 1)
			start := time.Now()
			for range exchanges {
				if _, err := write(fd, buf); err != nil {
					return err
				}
				if _, err := read(fd, buf); err != nil {
					return err
				}
			}
			took = time.Since(start)
			return nil
		},
		func(fd int) error {
			buf := make([]byte, 1)
			for range exchanges {
				if _, err := read(fd, buf); err != nil {
					return err
				}
				if _, err := write(fd, buf); err != nil {
					return err
				}
			}
			return nil
		})
	return float64(took.Microseconds()) / exchanges, err
}
