package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// echo answers every message at once but those that it drops, and breaks after
// a number of answers.
type echo struct {
	drop    func(n uint16) bool
	breaks  int
	answers chan uint16
}

func (e *echo) send(n uint16) error {
	if !e.drop(n) {
		e.answers <- n
	}
	return nil
}

func (e *echo) receive() (uint16, error) {
	if e.breaks--; e.breaks == 0 {
		return 0, errors.New("reset by peer")
	}
	n, ok := <-e.answers
	if !ok {
		return 0, errors.New("closed")
	}
	return n, nil
}

func (e *echo) Close() error {
	close(e.answers)
	return nil
}

func TestTraffic(t *testing.T) {
	none := func(uint16) bool { return false }
	tests := []struct {
		name   string
		drop   func(n uint16) bool
		breaks int
		lost   int
		gap    time.Duration
		error  string
	}{
		{"nothing lost", none, 0, 0, StreamPace, ""},
		{"one lost", func(n uint16) bool { return n == 10 }, 0, 1, 2 * StreamPace, ""},
		{"half a second lost", func(n uint16) bool { return n >= 10 && n < 60 }, 0, 50, 51 * StreamPace, ""},
		{"the last lost", func(n uint16) bool { return n >= 80 }, 0, 20, 20*StreamPace + StreamPace/2, ""},
		{"broken", none, 11, 0, StreamPace, "reset by peer"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// Not a multiple of the pace, so that no message is on its way in the end.
				ctx, cancel := context.WithTimeout(t.Context(), time.Second+StreamPace/2)
				defer cancel()
				first := make(chan error, 1)
				got := traffic(ctx, &echo{drop: tt.drop, breaks: tt.breaks, answers: make(chan uint16, 1000)}, StreamPace, first)
				if err := <-first; err != nil {
					t.Errorf("first answer: %v", err)
				}
				if tt.error == "" && got.Sent != 100 {
					t.Errorf("sent %d in a second, want 100", got.Sent)
				}
				if got.Error != tt.error || got.Lost != tt.lost && tt.error == "" {
					t.Errorf("got %s; want %d lost, error %q", got, tt.lost, tt.error)
				}
				if tt.error == "" && got.Longest != tt.gap {
					t.Errorf("longest gap %s, want %s", got.Longest, tt.gap)
				}
			})
		})
	}
}

func TestTrafficWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := make(chan error, 1)
		got := traffic(t.Context(), &echo{drop: func(uint16) bool { return true }, answers: make(chan uint16)}, StreamPace, first)
		if err := <-first; err == nil {
			t.Errorf("no error, and %s", got)
		}
	})
}

// TestMessenger holds that messages which TCP never mixes up are found out if it
// did.
func TestMessenger(t *testing.T) {
	message := func(n uint16, body byte) []byte {
		b := make([]byte, streamSize)
		binary.BigEndian.PutUint16(b, n)
		b[streamSize-1] = body
		return b
	}
	for _, tt := range []struct {
		name string
		sent [][]byte
		good int
	}{
		{"in order", [][]byte{message(0, 0), message(1, 0), message(2, 0)}, 3},
		{"one left out", [][]byte{message(0, 0), message(2, 0)}, 1},
		{"one twice", [][]byte{message(0, 0), message(0, 0)}, 1},
		{"one changed", [][]byte{message(0, 0), message(1, 'x')}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			go func() {
				theirs.Write([]byte("10.0.0.1\n"))
				for _, b := range tt.sent {
					theirs.Write(b)
				}
				theirs.Close()
			}()
			m := &messenger{c: ours}
			defer m.Close()
			good := 0
			for ; ; good++ {
				if _, err := m.receive(); err != nil {
					break
				}
			}
			if good != tt.good {
				t.Errorf("%d good messages, want %d", good, tt.good)
			}
		})
	}
}
