package ctl

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"cairn.network/cairn/policy"
)

func (e *env) showExplanation(x *explanation, f format) error {
	if f.machine() {
		return f.write(e.Out, x)
	}
	var b bytes.Buffer
	x.writeEnds(&b)
	if len(x.Answers) > 1 && !x.oneKind() {
		if err := x.writeOverview(&b); err != nil {
			return err
		}
	} else {
		for _, a := range x.Answers {
			b.WriteByte('\n')
			if err := a.write(&b, x); err != nil {
				return err
			}
		}
	}
	_, err := e.Out.Write(b.Bytes())
	return err
}

func (x *explanation) writeEnds(w io.Writer) {
	for _, n := range []struct {
		word string
		end  explainedEnd
	}{{"from", x.From}, {"to  ", x.To}} {
		line := n.end.Name
		if n.end.Kind != "address" {
			line += "  " + strings.Join(n.end.Addresses, ", ")
		}
		if n.end.Node != "" && n.end.Kind != "node" {
			line += "  on node " + n.end.Node
		}
		fmt.Fprintf(w, "%s %s\n", n.word, line)
	}
}

// oneKind says whether all answers are about the same packets, of two families.
func (x *explanation) oneKind() bool {
	return !slices.ContainsFunc(x.Answers, func(a answer) bool { return a.What != x.Answers[0].What })
}

// label names the packets of an answer, with their family if the other has another.
func (x *explanation) label(a answer) string {
	if slices.ContainsFunc(x.Answers, func(o answer) bool { return o.What == a.What && !slices.Equal(o.Families, a.Families) }) {
		return fmt.Sprintf("IPv%d %s", a.Families[0], a.What)
	}
	return a.What
}

// writeOverview writes a line for each kind of packets. Those that have the same
// verdict for the same reasons share it.
func (x *explanation) writeOverview(w io.Writer) error {
	var groups []answer
	for _, a := range x.Answers {
		i := slices.IndexFunc(groups, func(g answer) bool {
			return g.Verdict == a.Verdict && (g.Staged == nil) == (a.Staged == nil) && slices.EqualFunc(g.deciding(), a.deciding(), sameReason)
		})
		if i < 0 {
			i, groups = len(groups), append(groups, a)
			groups[i].What = x.label(a)
		} else {
			groups[i].What += ", " + x.label(a)
		}
	}
	t := &table{head: []string{"PACKETS", "VERDICT", "DECIDED AT", "BY"}}
	staged := false
	for _, a := range groups {
		if len(groups) == 1 {
			a.What = "anything"
		}
		verdict := a.Verdict
		if a.Staged != nil {
			verdict, staged = verdict+" *", true
		}
		for i, c := range a.deciding() {
			if i > 0 {
				a.What, verdict = " ", " "
			}
			t.add(a.What, verdict, c.Direction+" of "+c.At, c.decidedBy())
		}
		if len(a.deciding()) == 0 {
			t.add(a.What, verdict, "-", strings.Join(a.Notes, " "))
		}
	}
	fmt.Fprintln(w)
	if err := t.plain(w); err != nil {
		return err
	}
	if staged {
		fmt.Fprintln(w, "\n* would be otherwise if staged policies were enforced")
	}
	fmt.Fprintln(w, "\nName one with --protocol and --port to see the whole way.")
	return nil
}

// sameReason says whether two checks have one verdict for the same reason.
func sameReason(a, b explainedCheck) bool {
	return a.At == b.At && a.Direction == b.Direction && a.Phase == b.Phase && a.Verdict == b.Verdict && a.decidedBy() == b.decidedBy()
}

// deciding returns the check that denies; if none does, all of them.
func (a answer) deciding() []explainedCheck {
	for _, c := range a.Checks {
		if c.Verdict == verdictDenied {
			return []explainedCheck{c}
		}
	}
	return a.Checks
}

// write writes the whole way.
func (a answer) write(w io.Writer, x *explanation) error {
	fmt.Fprintf(w, "%s: %s\n", x.label(a), strings.ToUpper(a.Verdict))
	for _, n := range a.Notes {
		fmt.Fprintln(w, n)
	}
	for _, c := range a.Checks {
		if err := c.write(w); err != nil {
			return err
		}
	}
	if a.Staged == nil {
		return nil
	}
	fmt.Fprintf(w, "\nIf staged policies were enforced: %s\n", strings.ToUpper(a.Staged.Verdict))
	for _, c := range a.Staged.Checks {
		if slices.ContainsFunc(a.Checks, func(o explainedCheck) bool {
			return equal(o, c)
		}) {
			continue
		}
		if err := c.write(w); err != nil {
			return err
		}
	}
	return nil
}

// write writes a check and its walk.
func (x explainedCheck) write(w io.Writer) error {
	at := x.At
	if x.Kind == "host endpoint" {
		at = "host endpoint " + strings.TrimPrefix(x.At, "hep/")
		switch x.Phase {
		case policy.Forward.String():
			at += ", forwarded packets"
		case policy.Untracked.String():
			at += ", before connection tracking"
		case policy.PreDNAT.String():
			at += ", before translation of Services"
		}
	}
	fmt.Fprintf(w, "\n%s of %s: %s by %s\n", strings.ToUpper(x.Direction[:1])+x.Direction[1:], at, x.Verdict, x.decidedBy())
	if len(x.Walk) == 0 {
		return nil
	}
	var b bytes.Buffer
	t := &table{head: []string{"TIER", "POLICY", "DOES"}}
	for _, s := range x.Walk {
		name := s.Policy
		if name == "" {
			name = "(default action)"
		}
		t.add(s.Tier, name, s.Does)
	}
	if err := t.plain(&b); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		fmt.Fprint(w, "  "+line)
	}
	for _, s := range x.Walk {
		if s.Text != "" {
			fmt.Fprintf(w, "  %s, rule %d: %s\n", s.Policy, s.Rule, s.Text)
		}
	}
	return nil
}
