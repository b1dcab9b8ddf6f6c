package gobgp

import (
	"sync"
	"time"

	"cairn.network/cairn/bgp"
)

// session is what we remember of a peer's session across GoBGP's events. It
// outlives the neighbour in GoBGP, which is replaced when its settings change.
type session struct {
	mu      sync.Mutex
	state   bgp.State
	since   time.Time
	flaps   uint64
	ended   string // why it last left Established
	attempt string // why the last attempt failed; "" once Established
	conn    *conn  // handed to GoBGP last
	changed chan struct{}
	counts  counts
}

func newSession() *session {
	return &session{state: bgp.Idle, since: time.Now(), changed: make(chan struct{})}
}

// watch returns the state, when it began, and a channel that is closed when it
// changes.
func (s *session) watch() (bgp.State, time.Time, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.since, s.changed
}

// enter notes a new state. why is GoBGP's reason, used when the connection knows
// none. It says whether anything is new.
func (s *session) enter(state bgp.State, why string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == s.state {
		return false
	}
	if state == bgp.Idle && s.state != bgp.Active {
		if s.conn != nil && s.conn.failure() != "" {
			why = s.conn.failure()
		}
		if s.state == bgp.Established {
			s.flaps++
			s.ended, s.counts = why, counts{}
		} else {
			s.attempt = why
		}
	}
	if state == bgp.Established {
		s.attempt = ""
	}
	s.state, s.since = state, time.Now()
	close(s.changed)
	s.changed = make(chan struct{})
	return true
}

// use notes the connection that GoBGP gets.
func (s *session) use(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = c
}

// failed notes that no connection could be had. It says whether that is new.
func (s *session) failed(why string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == bgp.Established || s.attempt == why {
		return false
	}
	s.attempt = why
	return true
}

// fill copies what is remembered into out.
func (s *session) fill(out *bgp.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out.State, out.Since, out.Flaps = s.state, s.since, s.flaps
	out.LastError = s.ended
	if s.attempt != "" {
		out.LastError = s.attempt
	}
}
