package kernel

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
)

// Fake is the network of a host in memory. It behaves as the driver does on a
// real kernel, errnos included: gateways must be reachable, links must exist and
// be up, routes vanish with their link, another's route is never replaced. Tests
// shape the host with SetLink, AddAddr and the like, as its administrator would.
//
// It is a Watcher, a Conntrack, an Attacher, a Counters, a PacketLog, a Tracer, a Lookup
// and a Prober, and has the tables that a driver has. It is safe for concurrent use, uses
// no clock and starts no goroutine, so it works inside testing/synctest.
type Fake struct {
	mu        sync.Mutex
	nextIndex int
	links     map[string]Link
	addrs     map[Addr]struct{}
	routes    map[RouteKey]fakeRoute
	sysctls   map[Sysctl]string
	ruleset   fakeRuleset
	wireguard fakeWireGuard
	tunnels   fakeTunnelState
	release   string
	host      *Host // as last told; nil: something changed since
	watches   map[*fakeWatch]struct{}
	faults    map[fault]error
	writes    int
	flushed   []netip.Addr

	connections    []Connection
	nextConnection uint32
	logs           map[*fakeLog]struct{}
	trace          *fakeTrace // nil: nobody traces
	onSend         func(netns string, p Packet) Answer
}

var (
	_ Watcher   = (*Fake)(nil)
	_ Conntrack = (*Fake)(nil)
	_ Attacher  = (*Fake)(nil)
	_ Counters  = (*Fake)(nil)
	_ PacketLog = (*Fake)(nil)
	_ Tracer    = (*Fake)(nil)
	_ Lookup    = (*Fake)(nil)
	_ Prober    = (*Fake)(nil)
)

// fault names an operation that shall fail; a nil key means every key.
type fault struct {
	op  string
	key any
}

// NewFake returns a host that has its loopback link and nothing else.
func NewFake() *Fake {
	f := &Fake{
		release: "6.1.0-fake",
		links:   make(map[string]Link),
		addrs:   make(map[Addr]struct{}),
		routes:  make(map[RouteKey]fakeRoute),
		sysctls: make(map[Sysctl]string),
		watches: make(map[*fakeWatch]struct{}),
		faults:  make(map[fault]error),
		logs:    make(map[*fakeLog]struct{}),
	}
	for k := range HostSysctls() {
		f.sysctls[k] = "0"
	}
	f.SetLink(Link{Name: "lo", MTU: 65536, Up: true})
	return f
}

// Fail makes an operation fail with err until it is called again with nil. The
// operations are "set" and "delete" with a key of a table, "read" with "routes",
// "sysctls", "tunnels", "addresses", "neighbours", "forwarding", "sets",
// "elements", "chains", "counters", "peers" (WireGuard's), "key" or "traffic",
// "attach", "detach", "mtu" and "check" with a container ID, "flush" with an address,
// "list" (connections), "forget" with a Connection, "follow" with a group, "trace",
// "route" with a destination, "send" with a namespace, and "watch". A nil key means every key.
func (f *Fake) Fail(op string, key any, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		delete(f.faults, fault{op, key})
		return
	}
	f.faults[fault{op, key}] = err
}

// failure returns the error that op shall have on key. f.mu is held.
func (f *Fake) failure(op string, key any) error {
	if err := f.faults[fault{op, key}]; err != nil {
		return err
	}
	return f.faults[fault{op, nil}]
}

// Writes returns how many objects the tables, the Attacher and the Conntrack
// were asked to change since the fake was made, failures included.
func (f *Fake) Writes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.writes
}

// Flushed returns the addresses whose connections were flushed, in order.
func (f *Fake) Flushed() []netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.flushed)
}

// Host returns the host as it is now.
func (f *Fake) Host() *Host {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.snapshot()
}

// snapshot returns the host as it is now, the same pointer as long as nothing
// changes. f.mu is held.
func (f *Fake) snapshot() *Host {
	if f.host == nil {
		f.host = &Host{
			Links: maps.Clone(f.links), Addrs: maps.Clone(f.addrs), Foreign: make(map[RouteKey]Route), Release: f.release,
		}
		for k, r := range f.routes {
			if r.protocol != RouteProtocol && k.Table == MainTable && r.Type == Unicast {
				f.host.Foreign[k] = r.Route
			}
		}
	}
	return f.host
}

// SetRelease says of what release the kernel is (uname(2)). A new fake's is
// 6.1.0-fake.
func (f *Fake) SetRelease(release string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.release = release
	f.tell(Event{}, true)
}

// SetLink makes a link or changes the one with this name. An Index of 0 keeps
// the link's, or gives a new one the next number; another Index means that the
// link was deleted and made anew. A link that goes down loses its routes and its
// IPv6 addresses, and gets its connected routes back when it comes up.
func (f *Fake) SetLink(l Link) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.setLink(l)
}

func (f *Fake) setLink(l Link) {
	e := Event{}
	old, exists := f.links[l.Name]
	if exists && l.Index != 0 && l.Index != old.Index {
		f.dropLink(old, &e)
		exists = false
	}
	if !exists {
		if l.Index == 0 {
			f.nextIndex++
			l.Index = f.nextIndex
		}
		f.nextIndex = max(f.nextIndex, l.Index)
		for k := range PodLinkSysctls(l.Name) {
			f.sysctls[k] = "0"
		}
	} else {
		l.Index = old.Index
	}
	if exists && l == old {
		return
	}
	f.links[l.Name] = l
	e.touch(old, l)
	switch {
	case exists && old.Up && !l.Up:
		f.takeDown(l.Name, &e)
	case l.Up && !old.Up:
		for a := range f.addrs {
			if a.Link == l.Name {
				f.connect(a)
			}
		}
	}
	f.tell(e, true)
}

// DelLink deletes a link with all that hangs on it. Unknown: nothing happens.
func (f *Fake) DelLink(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l, ok := f.links[name]; ok {
		e := Event{}
		f.dropLink(l, &e)
		f.tell(e, true)
	}
}

func (f *Fake) dropLink(l Link, e *Event) {
	f.takeDown(l.Name, e)
	maps.DeleteFunc(f.addrs, func(a Addr, _ struct{}) bool { return a.Link == l.Name })
	for k := range PodLinkSysctls(l.Name) {
		delete(f.sysctls, k)
	}
	f.dropForwarding(l.Name, e)
	delete(f.tunnels.devices, l.Name)
	delete(f.links, l.Name)
	e.touch(l)
}

// takeDown removes what a link loses when it goes down. The kernel tells about
// the IPv6 routes and keeps silent about the IPv4 ones. A route over several
// links stays as long as one of them is there.
func (f *Fake) takeDown(link string, e *Event) {
	e.Down = append(e.Down, link)
	f.dropNeighbours(link, e)
	maps.DeleteFunc(f.addrs, func(a Addr, _ struct{}) bool { return a.Link == link && a.Prefix.Addr().Is6() })
	for k, r := range f.routes {
		if !r.Hops.Uses(link) || slices.ContainsFunc(r.Hops.List(), func(h NextHop) bool {
			l, ok := f.links[h.Link]
			return h.Link != link && ok && l.Up
		}) {
			continue
		}
		delete(f.routes, k)
		if r.protocol == RouteProtocol && k.Dst.Addr().Is6() {
			e.change(k, nil)
		}
	}
}

// AddAddr puts an address on a link, which must exist, and with it the connected
// route when the link is up.
func (f *Fake) AddAddr(a Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.links[a.Link]; !ok {
		panic(fmt.Sprintf("kernel.Fake: address %v for a link that does not exist", a))
	}
	f.addrs[a] = struct{}{}
	f.connect(a)
	e := Event{}
	e.touch(f.links[a.Link])
	f.tell(e, true)
}

// connectedMetric is what the kernel gives to connected routes of IPv6.
const connectedMetric = 256

func connectedKey(a Addr) RouteKey {
	k := RouteKey{Table: MainTable, Dst: a.Prefix.Masked()}
	if a.Prefix.Addr().Is6() {
		k.Priority = connectedMetric
	}
	return k
}

// connect adds the connected route of an address.
func (f *Fake) connect(a Addr) {
	if a.Prefix.IsSingleIP() && a.Prefix.Addr().Is4() || a.Link == "lo" || !f.links[a.Link].Up {
		return
	}
	r := Route{Hops: Hops(NextHop{Link: a.Link})}
	if a.Prefix.Addr().Is4() {
		r.Source = a.Prefix.Addr()
	}
	if _, taken := f.routes[connectedKey(a)]; !taken {
		f.routes[connectedKey(a)] = fakeRoute{r, ProtocolKernel}
	}
}

// DelAddr takes an address away, its connected route, and what had it as source.
func (f *Fake) DelAddr(a Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := Event{}
	f.dropAddr(a, &e)
	f.tell(e, true)
}

func (f *Fake) dropAddr(a Addr, e *Event) {
	delete(f.addrs, a)
	if r, ok := f.routes[connectedKey(a)]; ok && r.protocol == ProtocolKernel && r.Hops.Uses(a.Link) {
		delete(f.routes, connectedKey(a))
	}
	for k, r := range f.routes {
		if r.Source != a.Prefix.Addr() {
			continue
		}
		if r.Source.Is4() {
			delete(f.routes, k)
			continue
		}
		r.Source = netip.Addr{} // IPv6 keeps the route
		f.routes[k] = r
	}
	e.touch(f.links[a.Link])
	if a.Prefix.Addr().Is4() || ConcernsTunnels(f.links[a.Link]) {
		e.Down = append(e.Down, a.Link)
	}
}
