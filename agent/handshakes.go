package agent

import (
	"context"
	"time"

	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
)

// Delays between looks for first handshakes. A look costs the more the more peers
// there are, so the pause after one is at least ten times what it took.
const (
	minHandshakeLook = 50 * time.Millisecond
	maxHandshakeLook = 5 * time.Second
)

// handshakes finds out with which WireGuard peers there was a handshake since the
// device was made. Before it, the other node may not know this one yet, and would
// drop what it is sent.
type handshakes struct {
	a     *Agent
	index int // of the device
	peers immutable.Map[kernel.WireGuardKey, kernel.WireGuardPeer]
	met   immutable.Map[kernel.WireGuardKey, bool]
	unmet map[kernel.WireGuardKey]bool // of peers
	// recalled says that met may hold others than peers, of an earlier run.
	recalled bool
}

// recall takes over whom an earlier agent's device has met. It comes before all
// else.
func (h *handshakes) recall(ctx context.Context) {
	h.index, h.unmet = h.a.loop.currentHost().Links[kernel.LinkWireGuard].Index, map[kernel.WireGuardKey]bool{}
	if h.index != 0 {
		h.look(ctx, func(kernel.WireGuardKey) bool { return true })
		h.recalled = true
	}
	h.tell()
}

// run looks until ctx is done.
func (h *handshakes) run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	delay := minHandshakeLook
	var took time.Duration
	for {
		turn := h.a.loop.turn()
		if h.a.loop.recovered.Load() {
			if h.follow() { // they may have met already
				delay = minHandshakeLook
				timer.Reset(max(delay, 10*took))
			}
			h.tell()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-turn:
		case <-timer.C:
			if len(h.unmet) == 0 {
				continue
			}
			began := time.Now()
			h.look(ctx, func(k kernel.WireGuardKey) bool { return h.unmet[k] })
			h.tell()
			took = time.Since(began)
			delay = min(2*delay, maxHandshakeLook)
			timer.Reset(max(delay, 10*took))
		}
	}
}

// follow takes in which peers there are to be, and says whether some are new.
func (h *handshakes) follow() (news bool) {
	state, host := h.a.loop.state.Load(), h.a.loop.currentHost()
	if state == nil {
		return false
	}
	if index := host.Links[kernel.LinkWireGuard].Index; index != h.index {
		// Another device: it has met nobody.
		h.index, h.peers = index, immutable.Map[kernel.WireGuardKey, kernel.WireGuardPeer]{}
		h.met = immutable.Map[kernel.WireGuardKey, bool]{}
		clear(h.unmet)
	}
	met := h.met.Edit()
	for k := range immutable.Diff(h.peers, state.WireGuard) {
		_, known := met.Get(k)
		switch {
		case !state.WireGuard.Has(k):
			met.Delete(k)
			delete(h.unmet, k)
		case !known && !h.unmet[k]:
			h.unmet[k], news = true, true
		}
	}
	if h.recalled {
		h.recalled = false
		for k := range h.met.All() {
			if !state.WireGuard.Has(k) {
				met.Delete(k)
			}
		}
	}
	h.peers, h.met = state.WireGuard, met.Map()
	return news
}

// look asks the device about those peers for whom f says true.
func (h *handshakes) look(ctx context.Context, f func(kernel.WireGuardKey) bool) {
	traffic, err := h.a.drv.Encryption.Traffic(ctx)
	if err != nil {
		return // there is no device yet, or none any more
	}
	met := h.met.Edit()
	for _, p := range traffic {
		if !p.LastHandshake.IsZero() && f(p.Key) {
			met.Set(p.Key, true)
			delete(h.unmet, p.Key)
		}
	}
	h.met = met.Map()
}

// tell gives the loop what was found, if that is news.
func (h *handshakes) tell() {
	if old := h.a.loop.met.Load(); old != nil && immutable.Equal(*old, h.met) {
		return
	}
	now := h.met
	h.a.loop.met.Store(&now)
	h.a.loop.kick()
}
