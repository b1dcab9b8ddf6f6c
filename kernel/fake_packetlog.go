package kernel

import (
	"context"
	"fmt"
	"slices"
)

// fakeLog is one call of Follow.
type fakeLog struct {
	groups  []uint16
	pending []LoggedPacket
	lost    map[uint16]uint64
	wake    chan struct{} // holds one token while pending is not empty
}

// fakeLogBuffer is how many packets wait for a follower until more are lost.
const fakeLogBuffer = 1000

// LogPacket makes a rule log this packet: whoever follows its group is told. What is
// lost to a follower that is too slow is counted; p.Lost adds to that.
func (f *Fake) LogPacket(p LoggedPacket) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.logs {
		if !slices.Contains(l.groups, p.Group) {
			continue
		}
		if len(l.pending) == fakeLogBuffer {
			l.lost[p.Group] += 1 + p.Lost
			continue
		}
		p.Lost += l.lost[p.Group]
		delete(l.lost, p.Group)
		l.pending = append(l.pending, p)
		if len(l.pending) == 1 {
			l.wake <- struct{}{}
		}
	}
}

// Follow tells about the packets of LogPacket. Fail("follow", group, err) makes it
// fail.
func (f *Fake) Follow(ctx context.Context, groups []uint16, fn func(LoggedPacket)) error {
	l := &fakeLog{groups: groups, lost: make(map[uint16]uint64), wake: make(chan struct{}, 1)}
	if err := f.beginLog(l); err != nil {
		return fmt.Errorf("follow logged packets: %w", err)
	}
	defer func() {
		f.mu.Lock()
		delete(f.logs, l)
		f.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		}
		f.mu.Lock()
		pending := l.pending
		l.pending = nil
		f.mu.Unlock()
		for _, p := range pending {
			fn(p)
		}
	}
}

func (f *Fake) beginLog(l *fakeLog) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, group := range l.groups {
		if err := f.failure("follow", group); err != nil {
			return err
		}
		taken := slices.Contains(l.groups[:i], group)
		for other := range f.logs {
			taken = taken || slices.Contains(other.groups, group)
		}
		if taken {
			return fmt.Errorf("group %d has another follower: %w", group, ErrBusy)
		}
	}
	f.logs[l] = struct{}{}
	return nil
}
