package probe

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTally(t *testing.T) {
	start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	one := func(began, took int, err error) try { return try{at(began), at(began + took), err} }
	count := func(n, first, last int) Count { return Count{n, at(first), at(last)} }
	noRoute := errors.New("no route")
	refused, dropped := fmt.Errorf("%w: reset", ErrRefused), fmt.Errorf("%w: EPERM", ErrNoAnswer)
	for _, tt := range []struct {
		name       string
		tries      []try
		early      bool
		want       Tally
		pass, none bool // meets it
	}{
		{"none", nil, false, Tally{}, false, false},
		{"one answered", []try{one(5, 2, nil)}, false, Tally{Answered: count(1, 5, 5), Slowest: 2 * time.Millisecond}, true, false},
		{"gap and order of answers", []try{one(0, 30, nil), one(10, 1, nil), one(20, 2, nil)}, false,
			Tally{Answered: count(3, 0, 20), Slowest: 30 * time.Millisecond, Longest: 11 * time.Millisecond}, true, false},
		{"one silent", []try{one(0, 900, ErrNoAnswer)}, false, Tally{Silent: count(1, 0, 0)}, false, true},
		{"dropped on the way out", []try{one(0, 0, dropped)}, false, Tally{Silent: count(1, 0, 0)}, false, true},
		{"one silent among answers", []try{one(0, 1, nil), one(2, 900, ErrNoAnswer)}, false,
			Tally{Answered: count(1, 0, 0), Silent: count(1, 2, 2), Slowest: time.Millisecond}, false, false},
		{"one refused", []try{one(0, 1, refused), one(2, 900, ErrNoAnswer)}, false, Tally{Refused: count(1, 0, 0), Silent: count(1, 2, 2)}, false, false},
		{"never sent", []try{one(0, 0, noRoute)}, false, Tally{Unsent: count(1, 0, 0), Error: "no route"}, false, false},
		{"not sent at first", []try{one(0, 0, noRoute), one(1, 1, nil)}, false,
			Tally{Unsent: count(1, 0, 0), Answered: count(1, 1, 1), Slowest: time.Millisecond, Error: "no route"}, false, false},
		{"early", []try{one(0, 0, noRoute), one(1, 0, noRoute), one(2, 1, nil)}, true,
			Tally{Early: count(2, 0, 1), Answered: count(1, 2, 2), Slowest: time.Millisecond}, true, false},
		{"early, and later again", []try{one(0, 0, noRoute), one(1, 900, ErrNoAnswer), one(2, 0, noRoute), one(901, 0, noRoute)}, true,
			Tally{Early: count(2, 0, 2), Silent: count(1, 1, 1), Unsent: count(1, 901, 901), Error: "no route"}, false, true},
		{"early alone", []try{one(0, 0, noRoute)}, true, Tally{Early: count(1, 0, 0)}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := tallyOf(tt.tries, tt.early)
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if err := got.Meets(ExpectPass); (err == nil) != tt.pass {
				t.Errorf("pass: %v", err)
			}
			unrefused := tt.want.Answered.Number > 0 && tt.want.Refused.Number+tt.want.Unsent.Number == 0
			if err := got.Meets(ExpectUnrefused); (err == nil) != unrefused {
				t.Errorf("unrefused: %v", err)
			}
			if err := got.Meets(ExpectNone); (err == nil) != tt.none {
				t.Errorf("none: %v", err)
			}
			if err := got.Meets("some"); err == nil {
				t.Error("accepted an expectation that there is not")
			}
		})
	}
}
