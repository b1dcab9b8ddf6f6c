package agent

import (
	"testing"
	"time"
)

func TestTidying(t *testing.T) {
	start := time.Now()
	var ty tidying
	for _, tt := range []struct {
		after   time.Duration
		changed uint64
		wait    time.Duration
		due     bool
		done    bool
	}{
		{0, tidyObjects - 1, 0, false, false},
		{0, tidyObjects, tidyWait, true, false},
		{time.Second, tidyObjects + 1, tidyWait, true, false}, // more came, so it waits again
		{tidyMost - time.Second, tidyObjects + 2, time.Second, true, false},
		{tidyMost + time.Second, tidyObjects + 3, time.Millisecond, true, true}, // but not for ever
		{tidyMost + 2*time.Second, 2*tidyObjects + 2, 0, false, false},
		{tidyMost + 3*time.Second, 2*tidyObjects + 3, tidyWait, true, false},
	} {
		wait, due := ty.wait(tt.changed, start.Add(tt.after))
		if wait != tt.wait || due != tt.due {
			t.Errorf("%d objects after %s: wait %s, %t, want %s, %t", tt.changed, tt.after, wait, due, tt.wait, tt.due)
		}
		if tt.done {
			ty.done(tt.changed)
		}
	}
}
