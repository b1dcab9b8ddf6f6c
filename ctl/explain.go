package ctl

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/config"
	"cairn.network/cairn/policy"
)

func (e *env) policyExplain() *cobra.Command {
	var f format
	var from source
	var a asked
	var s scope
	var check bool
	cmd := &cobra.Command{
		Use:   "explain SRC DST",
		Short: "Say what becomes of packets, and which policy and rule decide",
		Long: endsText + `

Without --port and --protocol it lists what policies between the two tell apart;
with them it shows the whole way: each policy that concerns the ends, in the order
in which they are asked, and what it does. Rules are counted from 1, as they stand in
the resource. Both families are looked at, and shown once if they are alike.

What answers a connection needs no rule: ask about the way that connections begin.
A Service's address is not known here: ask about the pods behind it.`,
		Example: `  cairn ctl policy explain shop/web shop/db --port 5432
  cairn ctl policy explain shop/web 198.51.100.7 --port 443
  cairn ctl policy explain node/n1 web --port http
  cairn ctl policy explain web db --protocol icmp --icmp-type 8
  cairn ctl policy explain web db -f cluster.yaml -f policies/ --check`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return misuse("%s takes a source and a destination", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.check(); err != nil {
				return err
			}
			c, err := e.cluster(cmd.Context(), &from)
			if err != nil {
				return err
			}
			x, err := c.explain(args[0], args[1], s.namespace, &a)
			if err != nil {
				return err
			}
			if err := e.showExplanation(x, f); err != nil || !check {
				return err
			}
			return x.denied()
		},
	}
	addFormat(cmd, &f)
	from.addFlags(cmd)
	a.addFlags(cmd, true)
	s.addFlag(cmd)
	cmd.Flags().BoolVar(&check, "check", false, "end with 1 if any of it is denied")
	config.CallOnly(cmd.Flags(), "check")
	return cmd
}

// explanation is what becomes of packets from one end to another.
type explanation struct {
	From    explainedEnd `json:"from"`
	To      explainedEnd `json:"to"`
	Answers []answer     `json:"answers"`
}

type explainedEnd struct {
	Name      string   `json:"name"`
	Kind      string   `json:"kind"`
	Node      string   `json:"node,omitempty"`
	Addresses []string `json:"addresses"`
}

// answer is what becomes of packets of one kind.
type answer struct {
	// What the packets are: "tcp 80".
	What string `json:"what"`
	// Families are those of which it is so: 4, 6.
	Families []int  `json:"families"`
	Verdict  string `json:"verdict"` // "allowed" or "denied"
	// Checks are the places where it is decided, in order.
	Checks []explainedCheck `json:"checks"`
	// Notes are what else is to be known.
	Notes []string `json:"notes,omitempty"`
	// Staged is what would become of them with staged policies enforced, where that
	// differs.
	Staged *answer `json:"staged,omitempty"`
}

// explain returns what becomes of the packets that are asked for.
func (c *cluster) explain(from, to, namespace string, a *asked) (*explanation, error) {
	src, err := c.end(from, namespace)
	if err != nil {
		return nil, err
	}
	dst, err := c.end(to, namespace)
	if err != nil {
		return nil, err
	}
	x := &explanation{From: explainedOf(src), To: explainedOf(dst)}
	world := c.of(src, dst)
	common := false
	for _, v6 := range a.families() {
		s, d := src.at(v6), dst.at(v6)
		if !s.IsValid() || !d.IsValid() {
			continue
		}
		common = true
		kinds, err := a.between(s, d, world, world.Staged())
		if err != nil {
			return nil, err
		}
		for _, k := range kinds {
			one := c.answer(world, src, dst, k.Packet(s, d))
			one.What, one.Families = k.String(), []int{map[bool]int{false: 4, true: 6}[v6]}
			x.add(one)
		}
	}
	if !common {
		return nil, fmt.Errorf("%s and %s have no addresses of one family%s", src.name, dst.name, a.familyText())
	}
	return x, nil
}

func (a *asked) familyText() string {
	families := a.families()
	switch {
	case len(families) == 2:
		return ""
	case families[0]:
		return " that is IPv6"
	}
	return " that is IPv4"
}

func explainedOf(n end) explainedEnd {
	x := explainedEnd{Name: n.name, Kind: n.kind, Node: n.node}
	for _, a := range n.addrs {
		x.Addresses = append(x.Addresses, a.String())
	}
	return x
}

// of returns the world for packets between two ends.
func (c *cluster) of(src, dst end) *policy.World {
	w := c.seenFrom(src, dst)
	// What is open in any case is a setting of each node.
	out, in := c.settings(src.node), c.settings(dst.node)
	own := [2][]policy.FailSafe{
		policy.Ingress: policy.FromFailsafePorts(in.FailsafeInbound), policy.Egress: policy.FromFailsafePorts(out.FailsafeOutbound),
	}
	if slices.Equal(own[0], w.FailSafe[0]) && slices.Equal(own[1], w.FailSafe[1]) {
		return w
	}
	changed := *w
	changed.FailSafe = own
	return changed.Remembering()
}

// add adds an answer, to the same of another family if there is one.
func (x *explanation) add(one answer) {
	for i, o := range x.Answers {
		families := o.Families
		o.Families = one.Families
		if equal(o, one) {
			x.Answers[i].Families = append(families, one.Families...)
			return
		}
	}
	x.Answers = append(x.Answers, one)
}

// denied returns an error if any of it is.
func (x *explanation) denied() error {
	for _, a := range x.Answers {
		if a.Verdict == verdictDenied {
			return fmt.Errorf("%s from %s to %s: %w", a.What, x.From.Name, x.To.Name, errDenied)
		}
	}
	return nil
}

// answer returns what becomes of a packet.
func (c *cluster) answer(w *policy.World, src, dst end, p policy.Packet) answer {
	v := w.Evaluate(p)
	out := c.answerOf(w, v)
	if note := c.toOwnNode(w, p); note != "" {
		out.Verdict, out.Notes = verdictDenied, append(out.Notes, note)
	} else if v.Staged != nil && v.Staged.Action != v.Action {
		staged := c.answerOf(w.Staged(), *v.Staged)
		out.Staged = &staged
	}
	out.Notes = append(out.Notes, unasked(v, src, dst)...)
	return out
}

// toOwnNode says that a pod does not reach its own node by the agent's settings.
func (c *cluster) toOwnNode(w *policy.World, p policy.Packet) string {
	if !w.OwnNode(p.Dst, p.Src) {
		return ""
	}
	for _, o := range c.pods {
		if slices.Contains(o.Addrs(), p.Src) && c.settings(o.Spec.Node).DefaultEndpointToHostAction == v1.EndpointToHostDrop {
			return "Pods don't reach their own node: AgentConfiguration says defaultEndpointToHostAction: Drop."
		}
	}
	return ""
}

// unasked says at which ends no policy is asked, and why.
func unasked(v policy.Verdict, src, dst end) []string {
	var notes []string
	for i, n := range []end{policy.Ingress: dst, policy.Egress: src} {
		way := policy.Direction(i)
		switch {
		case slices.ContainsFunc(v.Checks, func(c policy.Check) bool { return c.Direction == way }):
		case n.node == "":
			notes = append(notes, n.name+" is outside the cluster: no policy is asked there.")
		case src.node == dst.node:
			notes = append(notes, "Both are on node "+n.node+": its host endpoints are not asked.")
		default:
			notes = append(notes, "Node "+n.node+" has no host endpoint on the way: no policy is asked there.")
		}
	}
	slices.Reverse(notes)
	return slices.Compact(notes)
}
