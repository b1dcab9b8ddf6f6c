package probe

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Expectation is what a row of exchanges should show.
type Expectation string

// Expectations.
const (
	ExpectPass Expectation = "pass" // each is answered
	// ExpectUnrefused is that some are answered and none is refused; some may be lost,
	// as when they were sent before the way back was there.
	ExpectUnrefused Expectation = "unrefused"
	ExpectNone      Expectation = "none" // nothing comes back, and something was sent
)

// Count is how often something was so, and when it was so first and last: when these
// exchanges began.
type Count struct {
	Number int       `json:"number"`
	First  time.Time `json:"first,omitzero"`
	Last   time.Time `json:"last,omitzero"`
}

func (c *Count) add(began time.Time) {
	if c.Number++; c.Number == 1 || began.Before(c.First) {
		c.First = began
	}
	if began.After(c.Last) {
		c.Last = began
	}
}

// Tally is what became of a row of exchanges.
type Tally struct {
	Answered Count `json:"answered"`
	Refused  Count `json:"refused"`
	Silent   Count `json:"silent"` // no answer
	Unsent   Count `json:"unsent"` // could not be sent
	// Early is what could not be sent before anything could, where that is expected: it
	// began before one ended that was sent. Which came first of two at a time nobody knows.
	Early Count `json:"early"`
	// Longest is the time between two answers, Slowest that from an exchange's
	// beginning to its answer.
	Longest time.Duration `json:"longest"`
	Slowest time.Duration `json:"slowest"`
	// Error is the last reason for which one could not be sent.
	Error string `json:"error,omitempty"`
}

// try is an exchange that ended.
type try struct {
	began, ended time.Time
	err          error
}

// unsent says whether nothing left the namespace.
func (t try) unsent() bool {
	return t.err != nil && !errors.Is(t.err, ErrRefused) && !errors.Is(t.err, ErrNoAnswer)
}

// tallyOf returns what became of these exchanges. With early, those that could not be
// sent before anything could be are counted as such.
func tallyOf(tries []try, early bool) Tally {
	var t Tally
	tries = slices.SortedStableFunc(slices.Values(tries), func(a, b try) int { return a.ended.Compare(b.ended) })
	var sent, answer time.Time // when the first ended that was sent; the last answer
	if i := slices.IndexFunc(tries, func(e try) bool { return !e.unsent() }); i >= 0 {
		sent = tries[i].ended
	}
	for _, e := range tries {
		switch {
		case e.err == nil:
			t.Answered.add(e.began)
			t.Slowest = max(t.Slowest, e.ended.Sub(e.began))
			if !answer.IsZero() {
				t.Longest = max(t.Longest, e.ended.Sub(answer))
			}
			answer = e.ended
		case errors.Is(e.err, ErrRefused):
			t.Refused.add(e.began)
		case errors.Is(e.err, ErrNoAnswer):
			t.Silent.add(e.began)
		case early && (sent.IsZero() || e.began.Before(sent)):
			t.Early.add(e.began)
		default:
			t.Unsent.add(e.began)
			t.Error = e.err.Error()
		}
	}
	return t
}

// Meets returns nil if the row shows what it should, else what it shows.
func (t Tally) Meets(x Expectation) error {
	switch x {
	case ExpectPass:
		if t.Answered.Number == 0 || t.Refused.Number+t.Silent.Number+t.Unsent.Number > 0 {
			return fmt.Errorf("want every one answered: %s", t)
		}
	case ExpectUnrefused:
		if t.Answered.Number == 0 || t.Refused.Number+t.Unsent.Number > 0 {
			return fmt.Errorf("want some answered, and none refused: %s", t)
		}
	case ExpectNone:
		if t.Silent.Number == 0 || t.Answered.Number+t.Refused.Number > 0 {
			return fmt.Errorf("want none answered, and some sent: %s", t)
		}
	default:
		return fmt.Errorf("unknown expectation %q; there are %s, %s and %s", x, ExpectPass, ExpectUnrefused, ExpectNone)
	}
	return nil
}

func (t Tally) String() string {
	sent := t.Answered.Number + t.Refused.Number + t.Silent.Number
	text := fmt.Sprintf("sent %d: %d answered, %d refused, %d without an answer; longest gap %s, slowest answer %s",
		sent, t.Answered.Number, t.Refused.Number, t.Silent.Number, t.Longest.Round(time.Microsecond), t.Slowest.Round(time.Microsecond))
	if n := t.Early.Number; n > 0 {
		text += fmt.Sprintf("; %d before anything could be sent", n)
	}
	if n := t.Unsent.Number; n > 0 {
		text += fmt.Sprintf("; %d could not be sent: %s", n, t.Error)
	}
	return text
}
