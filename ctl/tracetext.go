package ctl

import (
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "cairn.network/cairn/api/v1"
)

// writeTrace writes a trace for people.
func writeTrace(w io.Writer, t *v1.PacketTrace) error {
	s := t.Status
	p := s.Packet
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s -> %s\n", p.Protocol, traceEndText(t.Spec.Source, p.Source, p.SourcePort), traceEndText(t.Spec.Destination, p.Destination, p.DestinationPort))
	width := 0
	for _, o := range s.Observations {
		width = max(width, len(o.Node))
	}
	steps := func(reply bool) {
		for _, o := range inOrder(s, reply) {
			fmt.Fprintf(&b, "%-*s   %s\n", width, o.Node, o.Text)
		}
	}
	steps(false)
	if back := inOrder(s, true); len(back) > 0 {
		fmt.Fprintln(&b, "The answer:")
		steps(true)
	}
	for _, problem := range s.Problems {
		fmt.Fprintf(&b, "Node %s takes no part: %s\n", problem.Node, problem.Reason)
	}
	for _, node := range s.Nodes {
		complains := slices.ContainsFunc(s.Problems, func(p v1.TraceProblem) bool { return p.Node == node })
		if !complains && !slices.Contains(s.Ready, node) {
			fmt.Fprintf(&b, "Node %s takes no part: its agent does not answer\n", node)
		}
	}
	fmt.Fprintln(&b, verdictText(t))
	_, err := io.WriteString(w, b.String())
	return err
}

// verdictText says in one sentence what became of the packet.
func verdictText(t *v1.PacketTrace) string {
	s := t.Status
	last := lastVerdict(s, false)
	switch {
	case last == nil && s.SentAt.IsZero():
		return "The packet was not sent."
	case last == nil:
		return fmt.Sprintf("Nothing was seen on %s: the packet did not get out of %s. %s", strings.Join(s.Nodes, ", "), t.Spec.Source, answerText(t))
	case last.Verdict == v1.TraceDelivered:
		return fmt.Sprintf("Delivered on %s. %s", last.Node, answerText(t))
	case last.Verdict != v1.TraceSent:
		return fmt.Sprintf("Lost on %s: %s.", last.Node, last.Text)
	case len(s.Nodes) > 1 && last.Node != s.Nodes[1]:
		return fmt.Sprintf("Left %s (%s); not seen on %s within %s.", last.Node, last.Text, s.Nodes[1], t.Spec.Wait())
	}
	return fmt.Sprintf("Left %s (%s). %s", last.Node, last.Text, answerText(t))
}

// answerText says what came back.
func answerText(t *v1.PacketTrace) string {
	switch t.Status.Answer {
	case v1.TraceAnswered:
		if back := lastVerdict(t.Status, true); back != nil && back.Verdict == v1.TraceDropped {
			return fmt.Sprintf("An answer came, and was lost on %s: %s.", back.Node, back.Text)
		}
		return "An answer came back."
	case v1.TraceRefused:
		return "It was refused: nothing listens there, or somebody on the way says no."
	}
	if back := lastVerdict(t.Status, true); back != nil && back.Verdict == v1.TraceDropped {
		return fmt.Sprintf("The answer was lost on %s: %s.", back.Node, back.Text)
	}
	return fmt.Sprintf("No answer came within %s.", t.Spec.Wait())
}
