package kernel

import (
	"context"
	"fmt"
)

// OnSend says what becomes of packets that are sent, in place of silence. It may call
// the fake's other methods.
func (f *Fake) OnSend(answer func(netns string, p Packet) Answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onSend = answer
}

// Send returns what OnSend's function does; without an answer it waits for ctx.
// Fail("send", netns, err) makes it fail.
func (f *Fake) Send(ctx context.Context, netns string, p Packet) (Answer, error) {
	f.mu.Lock()
	answer, err := f.onSend, f.failure("send", netns)
	f.mu.Unlock()
	if err == nil {
		err = CheckProbe(p)
	}
	if err != nil {
		return "", fmt.Errorf("send %v: %w", p, err)
	}
	if answer != nil {
		if a := answer(netns, p); a != NoAnswer {
			return a, nil
		}
	}
	<-ctx.Done()
	return NoAnswer, nil
}
