package gobgp

import (
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/osrg/gobgp/v4/pkg/config/oc"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// lever moves three things in a GoBGP server that its API does not offer.
//
// GoBGP v4.8 connects no sooner than 1.5 s after a neighbour was added, and
// stays in Idle for 5 s after a session ended, refusing the peer meanwhile: both
// are constants (minConnectRetryInterval and holdtimeIdle of its fsm.go). A
// cluster would need seconds to come up, and each restart of an agent longer
// still. So we open and accept the connections ourselves, hand them over through
// the channel on which GoBGP awaits accepted ones, and take the Idle hold away.
// That also tells us why a connection failed, which GoBGP only logs.
//
// And it empties the queue of a neighbour that is deleted: GoBGP looks only once
// whether anything is left in it, and then leaks the queue and its goroutine.
//
// The fields are reached by name and checked when a server is made, so a
// version of GoBGP that lacks one is refused at once, by the tests first of all.
type lever struct {
	mu        *sync.RWMutex // guards neighbors and orders us with the state machines
	neighbors reflect.Value // map[netip.Addr]*peer
}

// newLever takes hold of s, which must not serve yet, and gives it a channel
// for connections.
func newLever(s *server.BgpServer) (l lever, accept chan<- net.Conn, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("this GoBGP is not one we know: %v", r)
		}
	}()
	srv := reflect.ValueOf(s).Elem()
	l.mu = &at[sync.RWMutex](field(field(srv, "shared").Elem(), "mu")).v
	l.neighbors = field(srv, "neighborMap")
	if key := l.neighbors.Type().Key(); key != reflect.TypeFor[netip.Addr]() {
		panic(fmt.Sprintf("neighborMap has keys of type %v", key))
	}
	machine(reflect.New(l.neighbors.Type().Elem().Elem()).Elem(), true)
	conns := make(chan net.Conn, 32)
	at[chan net.Conn](field(srv, "acceptCh")).v = conns
	return l, conns, nil
}

// stateMachine is what we touch of GoBGP's state machine of one peer.
type stateMachine struct {
	lock *sync.Mutex
	conf *atomic.Pointer[oc.Neighbor]
	hold *float64 // seconds in Idle after the next failure
	out  queue    // to the peer
}

// queue is an InfiniteChannel. Out is closed when its owner closed the queue and
// it is empty.
type queue interface{ Out() <-chan any }

func machine(peer reflect.Value, probe bool) stateMachine {
	fsm := field(peer, "fsm")
	if probe {
		fsm.Set(reflect.New(fsm.Type().Elem()))
	}
	fsm = fsm.Elem()
	out, ok := field(fsm, "outgoingCh").Interface().(queue)
	if !ok {
		panic("outgoingCh is not a queue")
	}
	return stateMachine{
		out:  out,
		lock: &at[sync.Mutex](field(fsm, "lock")).v,
		conf: &at[atomic.Pointer[oc.Neighbor]](field(field(fsm, "pConf"), "conf")).v,
		hold: &at[float64](field(fsm, "idleHoldTime")).v,
	}
}

// skipIdleHold makes the peer leave Idle at once after its next failure. GoBGP
// forgets that each time it enters Active.
func (l lever) skipIdleHold(peer netip.Addr) {
	// A state machine passes through this lock on its way to Idle, before it
	// reads the field. While it isn't there yet, the field is nobody's.
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.neighbors.MapIndex(reflect.ValueOf(peer))
	if !p.IsValid() {
		return
	}
	m := machine(p.Elem(), false)
	m.lock.Lock()
	defer m.lock.Unlock()
	if m.conf.Load().State.SessionState.ToInt() != int(bgp.BGP_FSM_IDLE) {
		*m.hold = 0
	}
}

// drain returns what empties the queue of a peer that is about to be deleted, and
// returns when the peer is gone.
func (l lever) drain(peer netip.Addr) func() {
	l.mu.RLock()
	defer l.mu.RUnlock()
	p := l.neighbors.MapIndex(reflect.ValueOf(peer))
	if !p.IsValid() {
		return func() {}
	}
	out := machine(p.Elem(), false).out.Out()
	return func() {
		for range out {
		}
	}
}

// field returns a field of an addressable struct, exported or not.
func field(v reflect.Value, name string) reflect.Value {
	f := v.FieldByName(name)
	if !f.IsValid() {
		panic(fmt.Sprintf("%v has no field %s", v.Type(), name))
	}
	return reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem()
}

type cell[T any] struct{ v T }

// at returns the place of v, which must be of type T.
func at[T any](v reflect.Value) *cell[T] {
	if want := reflect.TypeFor[T](); v.Type() != want {
		panic(fmt.Sprintf("a field is a %v, not a %v", v.Type(), want))
	}
	return (*cell[T])(unsafe.Pointer(v.UnsafeAddr()))
}
