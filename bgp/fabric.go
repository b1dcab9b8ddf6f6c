package bgp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"cairn.network/cairn/kernel"
)

// Fabric joins any number of fake speakers in memory. A change takes effect
// before the call that makes it returns, all over the fabric: there is no delay
// and nothing to poll. Time matters only where the protocol says so (hold time,
// restart time, deferral), so with testing/synctest a run is deterministic.
type Fabric struct {
	mu       sync.Mutex
	speakers []*FakeSpeaker // in the order of their start
	cuts     map[[2]string]bool
	occupied map[netip.AddrPort]int
}

// NewFabric returns a fabric without speakers.
func NewFabric() *Fabric {
	return &Fabric{cuts: map[[2]string]bool{}, occupied: map[netip.AddrPort]int{}}
}

// Speaker adds a speaker on the host of that name with these addresses, and
// replaces one that ended there.
func (f *Fabric) Speaker(name string, addrs ...netip.Addr) *FakeSpeaker {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &FakeSpeaker{fabric: f, name: name, addrs: addrs, changed: make(chan struct{}, 1)}
	f.speakers = slices.DeleteFunc(f.speakers, func(o *FakeSpeaker) bool { return o.name == name && o.life == nil })
	f.speakers = append(f.speakers, s)
	return s
}

// Cut breaks the link between two hosts: nothing passes, and nobody is told.
func (f *Fabric) Cut(a, b string) { f.setCut(a, b, true) }

// Heal mends the link between two hosts.
func (f *Fabric) Heal(a, b string) { f.setCut(a, b, false) }

func (f *Fabric) setCut(a, b string, cut bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cuts[[2]string{min(a, b), max(a, b)}] = cut
	for _, s := range f.sessions() {
		s.cut = f.isCut(s.ends[0].life.speaker, s.ends[1].life.speaker)
		switch {
		case s.cut:
			s.hold(f)
		case !s.open(): // the end that is left finds the other gone
			s.close(f, nil, Notification{}, "")
		case s.timer != nil:
			s.timer.Stop()
			s.timer = nil
		}
	}
	f.settle()
}

func (f *Fabric) isCut(a, b *FakeSpeaker) bool {
	return f.cuts[[2]string{min(a.name, b.name), max(a.name, b.name)}]
}

// Occupy lets another program listen on an address and port until free is called.
func (f *Fabric) Occupy(at netip.AddrPort) (free func()) {
	f.occupy(at, 1)
	return func() { f.occupy(at, -1) }
}

func (f *Fabric) occupy(at netip.AddrPort, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.occupied[at] += n
}

// FakeSpeaker is a Speaker in a Fabric.
type FakeSpeaker struct {
	fabric  *Fabric
	name    string
	addrs   []netip.Addr
	changed chan struct{}
	life    *life // nil: no configuration
}

var _ Speaker = (*FakeSpeaker)(nil)

// life is a speaker's life with one configuration.
type life struct {
	speaker  *FakeSpeaker
	config   Config
	peers    map[netip.Addr]*fakePeer
	paths    map[netip.Prefix]Path
	rib      *RIB
	written  bool
	deferred bool
}

// Config is Speaker's.
func (s *FakeSpeaker) Config() kernel.Table[struct{}, Config] {
	return fakeTable[struct{}, Config]{s, s.configs, s.setConfig, func(struct{}) { s.end(PeerDeconfigured) }, false}
}

// Peers is Speaker's.
func (s *FakeSpeaker) Peers() kernel.Table[netip.Addr, Peer] {
	return fakeTable[netip.Addr, Peer]{s, s.peers, s.setPeer, s.deletePeer, true}
}

// Paths is Speaker's.
func (s *FakeSpeaker) Paths() kernel.Table[netip.Prefix, Path] {
	return fakeTable[netip.Prefix, Path]{s, s.paths, s.setPath, s.deletePath, true}
}

// RIB is Speaker's.
func (s *FakeSpeaker) RIB() *RIB {
	s.fabric.mu.Lock()
	defer s.fabric.mu.Unlock()
	if s.life == nil {
		return &RIB{}
	}
	return s.life.rib
}

// Sessions is Speaker's.
func (s *FakeSpeaker) Sessions(context.Context) (map[netip.Addr]Session, error) {
	s.fabric.mu.Lock()
	defer s.fabric.mu.Unlock()
	out := map[netip.Addr]Session{}
	if s.life != nil {
		for addr, p := range s.life.peers {
			out[addr] = p.report()
		}
	}
	return out, nil
}

// Changed is Speaker's.
func (s *FakeSpeaker) Changed() <-chan struct{} { return s.changed }

// Stop is Speaker's.
func (s *FakeSpeaker) Stop(_ context.Context, graceful bool) error {
	s.fabric.mu.Lock()
	defer s.fabric.mu.Unlock()
	if graceful {
		s.end(Notification{})
	} else {
		s.end(PeerDeconfigured)
	}
	s.fabric.settle()
	return nil
}

// Kill ends the speaker as a crash of its process does: the connections are
// closed, without a word on them.
func (s *FakeSpeaker) Kill() {
	s.fabric.mu.Lock()
	defer s.fabric.mu.Unlock()
	if s.life != nil {
		for _, p := range s.life.peers {
			if p.session != nil {
				p.session.close(s.fabric, p, Notification{}, "")
			}
		}
		s.life = nil
	}
	s.notify()
	s.fabric.settle()
}

// end stops a life. Without a notification sessions with graceful restart are
// only closed.
func (s *FakeSpeaker) end(n Notification) {
	if s.life == nil {
		return
	}
	for _, p := range s.life.peers {
		if p.session == nil {
			continue
		}
		if n == (Notification{}) && !p.session.graceful {
			p.session.close(s.fabric, p, PeerDeconfigured, "")
		} else {
			p.session.close(s.fabric, p, n, "")
		}
	}
	s.life = nil
	s.notify()
}

func (s *FakeSpeaker) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *FakeSpeaker) configs() map[struct{}]Config {
	if s.life == nil {
		return map[struct{}]Config{}
	}
	return map[struct{}]Config{{}: s.life.config}
}

func (s *FakeSpeaker) setConfig(_ struct{}, cfg Config) error {
	if s.life != nil && s.life.config == cfg {
		return nil
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	for _, addr := range cfg.Listen.List() {
		if err := s.mayListen(netip.AddrPortFrom(addr, cfg.Port)); err != nil {
			return err
		}
	}
	s.end(PeerDeconfigured)
	s.life = &life{speaker: s, config: cfg, peers: map[netip.Addr]*fakePeer{}, paths: map[netip.Prefix]Path{}, rib: &RIB{}}
	s.notify()
	return nil
}

func (s *FakeSpeaker) mayListen(at netip.AddrPort) error {
	if !slices.Contains(s.addrs, at.Addr()) {
		return fmt.Errorf("listen on %v: cannot assign requested address", at)
	}
	owner := s.fabric.listener(at)
	if s.fabric.occupied[at] > 0 || owner != nil && owner.speaker != s {
		return fmt.Errorf("listen on %v: address already in use", at)
	}
	return nil
}

// listener returns who listens there, or nil.
func (f *Fabric) listener(at netip.AddrPort) *life {
	for _, s := range f.speakers {
		if l := s.life; l != nil && l.config.Port == at.Port() && slices.Contains(l.config.Listen.List(), at.Addr()) {
			return l
		}
	}
	return nil
}

func (s *FakeSpeaker) peers() map[netip.Addr]Peer {
	out := map[netip.Addr]Peer{}
	for addr, p := range s.life.peers {
		out[addr] = p.want
	}
	return out
}

func (s *FakeSpeaker) setPeer(addr netip.Addr, want Peer) error {
	if err := want.Validate(addr); err != nil {
		return err
	}
	p := s.life.peers[addr]
	switch {
	case p == nil:
		s.life.peers[addr] = &fakePeer{
			life: s.life, addr: addr, want: want, state: Active, since: time.Now(),
			restarting: s.life.config.Restarting && want.Graceful && !s.life.deferred && !s.life.rib.Complete,
		}
	case p.want.Resets(want):
		if p.session != nil {
			p.session.close(s.fabric, p, PeerDeconfigured, "")
		}
		p.want, p.restarting = want, false
		p.forget()
	default:
		p.want = want
	}
	return nil
}

func (s *FakeSpeaker) deletePeer(addr netip.Addr) {
	if p := s.life.peers[addr]; p != nil {
		if p.session != nil {
			p.session.close(s.fabric, p, PeerDeconfigured, "")
		}
		delete(s.life.peers, addr)
	}
}

func (s *FakeSpeaker) paths() map[netip.Prefix]Path { return maps.Clone(s.life.paths) }

func (s *FakeSpeaker) setPath(prefix netip.Prefix, want Path) error {
	if err := want.Validate(prefix); err != nil {
		return err
	}
	s.life.paths[prefix] = want
	return nil
}

func (s *FakeSpeaker) deletePath(prefix netip.Prefix) { delete(s.life.paths, prefix) }

// fakeTable is one of a fake's tables.
type fakeTable[K, V comparable] struct {
	speaker   *FakeSpeaker
	read      func() map[K]V
	set       func(K, V) error
	del       func(K)
	needsLife bool
}

// Read is kernel.Table's.
func (t fakeTable[K, V]) Read(context.Context) (map[K]V, error) {
	t.speaker.fabric.mu.Lock()
	defer t.speaker.fabric.mu.Unlock()
	if t.needsLife && t.speaker.life == nil {
		return map[K]V{}, nil
	}
	return t.read(), nil
}

// Write is kernel.Table's.
func (t fakeTable[K, V]) Write(_ context.Context, set map[K]V, del []K) error {
	f := t.speaker.fabric
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	dead := t.needsLife && t.speaker.life == nil
	if !dead {
		for _, k := range del {
			if _, both := set[k]; !both {
				t.del(k)
			}
		}
	}
	for k, v := range set {
		err := ErrStopped
		if !dead {
			err = t.set(k, v)
		}
		if err != nil {
			errs = append(errs, &kernel.KeyError[K]{Op: "set", Key: k, Err: err})
		}
	}
	if _, ok := any(t).(fakeTable[netip.Addr, Peer]); ok && !dead {
		t.speaker.life.startDeferral(f)
	}
	f.settle()
	return errors.Join(errs...)
}

// startDeferral gives the peers their time, from their first write on.
func (l *life) startDeferral(f *Fabric) {
	if l.written {
		return
	}
	l.written = true
	d := l.config.Deferral
	if d == 0 {
		d = DefaultDeferral
	}
	time.AfterFunc(d, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if l.speaker.life == l {
			l.deferred = true
			f.settle()
		}
	})
}
