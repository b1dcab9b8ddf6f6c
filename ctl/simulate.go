package ctl

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/config"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/policy"
)

// simulating is what the flags of the command say.
type simulating struct {
	change source // what would be applied
	base   source // the cluster as it is
	gone   []string
	with   []string // addresses
	staged bool
	all    bool
	asked  asked
	pods   chosenPods
}

func (s *simulating) addFlags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringSliceVarP(&s.change.files, "filename", "f", nil, "file or folder with what would be applied; - for standard input")
	fs.BoolVarP(&s.change.recursive, "recursive", "R", false, "read the folders in folders too")
	fs.StringSliceVar(&s.gone, "delete", nil, "what would be deleted: KIND/NAME or KIND/NAMESPACE/NAME")
	fs.BoolVar(&s.staged, "staged", false, "enforce the staged policies")
	fs.StringSliceVar(&s.base.files, "base", nil, "read the cluster as it is from these files and folders, not from the datastore")
	fs.StringSliceVar(&s.with, "with", nil, "also packets from and to these addresses, such as one outside")
	fs.BoolVar(&s.all, "all", false, "list the pairs that stay as they are, too")
	config.CallOnly(fs, "filename", "recursive", "delete", "staged", "base", "with", "all")
	s.asked.addFlags(cmd, false)
	s.pods.addFlags(cmd)
}

func (e *env) policySimulate() *cobra.Command {
	var f format
	var s simulating
	cmd := &cobra.Command{
		Use:   "simulate -f FILE… [--delete KIND/NAME…] [--staged]",
		Short: "Say which pairs of pods and nodes a change would connect or cut",
		Long: `Compare the cluster as it is with the cluster as it would be with what is given
applied, deleted or, with --staged, enforced. Nothing is written.

It lists each pair of pods, and of a pod and a node, of which some packets would have
another verdict: before and after, with the policy and rule that decide. Packets are
told apart as the policies of before and after tell them apart; --port and --protocol
ask about some only.

Whatever verdicts depend on may be given: policies, tiers, network sets, namespaces
with other labels, endpoints of Services, pods with other labels.`,
		Example: `  cairn ctl policy simulate -f new.yaml
  cairn ctl policy simulate -f new.yaml --delete networkpolicy/shop/old -n shop
  cairn ctl policy simulate --staged --with 198.51.100.7
  cairn ctl policy simulate -f new.yaml --base cluster.yaml -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.simulate(cmd, &s, f) },
	}
	addFormat(cmd, &f)
	s.addFlags(cmd)
	return cmd
}

func (e *env) simulate(cmd *cobra.Command, s *simulating, f format) error {
	if len(s.change.files)+len(s.gone) == 0 && !s.staged {
		return misuse("%s wants a change: -f FILE, --delete KIND/NAME or --staged", cmd.CommandPath())
	}
	if err := s.asked.check(); err != nil {
		return err
	}
	gone, err := s.keys()
	if err != nil {
		return err
	}
	if _, err := s.pods.of(&cluster{}); err != nil {
		return err
	}
	var docs []document
	if len(s.change.files) > 0 {
		if docs, err = e.documents(s.change.files, s.change.recursive); err != nil {
			return err
		}
	}
	before, err := e.cluster(cmd.Context(), &s.base)
	if err != nil {
		return err
	}
	if err := before.hold(gone); err != nil {
		return err
	}
	after := before.with(docs, gone)
	e.warn(slices.DeleteFunc(after.issues, func(i v1.Issue) bool { return slices.Contains(before.issues, i) }))
	ends, err := s.ends(before, after)
	if err != nil {
		return err
	}
	return e.showChanges(compare(before, after, ends, s), f, s.all)
}

// keys returns what is to be deleted.
func (s *simulating) keys() ([]datastore.Key, error) {
	var keys []datastore.Key
	for _, text := range s.gone {
		parts := strings.Split(text, "/")
		if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
			return nil, misuse("--delete %q: write KIND/NAME or KIND/NAMESPACE/NAME", text)
		}
		kind, err := kindOf(parts[0])
		if err != nil {
			return nil, err
		}
		key := datastore.Key{Kind: kind.Name, Name: parts[len(parts)-1]}
		switch {
		case kind.Namespaced && len(parts) == 3:
			key.Namespace = parts[1]
		case kind.Namespaced:
			key.Namespace = "default"
		case len(parts) == 3:
			return nil, misuse("--delete %q: %s is in no namespace", text, kind.Name)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// hold says which of the objects are not there.
func (c *cluster) hold(keys []datastore.Key) error {
	var errs []error
	for _, k := range keys {
		if !slices.ContainsFunc(c.objects, func(o v1.Object) bool { return datastore.KeyOf(o) == k }) {
			errs = append(errs, notFound(k))
		}
	}
	return errors.Join(errs...)
}

// ends returns the pods and nodes that are there before and after, and the addresses
// that are asked for.
func (s *simulating) ends(before, after *cluster) ([]end, error) {
	pods, err := s.pods.of(before)
	if err != nil {
		return nil, err
	}
	stays := map[datastore.Key]bool{}
	for _, w := range after.pods {
		stays[datastore.KeyOf(w)] = true
	}
	ends := slices.DeleteFunc(pods, func(n end) bool { return !stays[datastore.KeyOf(n.pod)] })
	for _, n := range before.world.Nodes {
		if len(n.Addrs) > 0 && slices.ContainsFunc(after.world.Nodes, func(o policy.Node) bool { return o.Name == n.Name }) {
			ends = append(ends, nodeEnd(n))
		}
	}
	for _, text := range s.with {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, misuse("--with %q: it is no address", text)
		}
		ends = append(ends, before.addressEnd(a.Unmap()))
	}
	return ends, nil
}

// changes is what a change does.
type changes struct {
	Pairs   int `json:"pairs"`
	Changed int `json:"changed"`
	// Opened and Closed are pairs of which some packets are allowed that were denied, and
	// the reverse.
	Opened int          `json:"opened"`
	Closed int          `json:"closed"`
	List   []pairChange `json:"list"`
}

// pairChange is what becomes of packets between a pair, before and after.
type pairChange struct {
	From string `json:"from"`
	To   string `json:"to"`
	// What names the packets.
	What    []string      `json:"what"`
	Before  verdictChange `json:"before"`
	After   verdictChange `json:"after"`
	Changed bool          `json:"changed"`
}

type verdictChange struct {
	Verdict string `json:"verdict"`
	By      string `json:"by"`
}

func compare(before, after *cluster, ends []end, s *simulating) *changes {
	if s.staged {
		enforced := *after
		enforced.world = after.world.Staged()
		after = &enforced
	}
	p := newPairs(&s.asked, before, after)
	hosts := slices.ContainsFunc(slices.Concat(before.world.Endpoints, after.world.Endpoints), func(e *policy.Endpoint) bool { return e.Kind == policy.KindHost })
	out := &changes{List: []pairChange{}}
	all := p.members(ends)
	for i, from := range all {
		for j, to := range all {
			// Without host endpoints nothing is asked where neither end is a pod.
			if i == j || !hosts && from.kind != "pod" && to.kind != "pod" {
				continue
			}
			passages := p.between(from.end, to.end, from.class, to.class)
			if len(passages) == 0 {
				continue
			}
			out.Pairs++
			opened, closed := turned(passages)
			out.count(opened, closed)
			if opened || closed || s.all {
				out.List = append(out.List, listed(from.name, to.name, passages, s.all)...)
			}
		}
	}
	return out
}

func (c *changes) count(opened, closed bool) {
	if opened || closed {
		c.Changed++
	}
	if opened {
		c.Opened++
	}
	if closed {
		c.Closed++
	}
}

// turned says whether some packets get through that did not, and the reverse.
func turned(all []passage) (opened, closed bool) {
	for _, o := range all {
		is, was := o.verdicts[1].Allowed, o.verdicts[0].Allowed
		opened, closed = opened || is && !was, closed || was && !is
	}
	return opened, closed
}

// listed gathers the packets between two ends that have the same before and after.
func listed(from, to string, all []passage, every bool) []pairChange {
	var list []pairChange
	for _, o := range all {
		one := pairChange{From: from, To: to, Before: changeOf(o.verdicts[0]), After: changeOf(o.verdicts[1])}
		if one.Changed = o.verdicts[0].Allowed != o.verdicts[1].Allowed; !one.Changed && !every {
			continue
		}
		i := slices.IndexFunc(list, func(p pairChange) bool { return p.Before == one.Before && p.After == one.After })
		if i < 0 {
			i, list = len(list), append(list, one)
		}
		what := familyWhat(o, all, 0)
		if after := familyWhat(o, all, 1); len(after) > len(what) {
			what = after
		}
		if !slices.Contains(list[i].What, what) {
			list[i].What = append(list[i].What, what)
		}
	}
	if len(list) == 1 && !slices.ContainsFunc(all, func(o passage) bool {
		return changeOf(o.verdicts[0]) != list[0].Before || changeOf(o.verdicts[1]) != list[0].After
	}) && len(list[0].What) > 1 {
		list[0].What = []string{"anything"}
	}
	return list
}

func changeOf(v ruling) verdictChange {
	if v.Allowed {
		return verdictChange{verdictAllowed, v.By}
	}
	return verdictChange{verdictDenied, v.By}
}

func (e *env) showChanges(c *changes, f format, all bool) error {
	if f.machine() {
		return f.write(e.Out, c)
	}
	var b bytes.Buffer
	if len(c.List) > 0 {
		t := &table{head: []string{"FROM", "TO", "PACKETS", "BEFORE", "AFTER"}}
		if all {
			t.head = append([]string{"CHANGED"}, t.head...)
		}
		for _, p := range c.List {
			row := []string{p.From, p.To, strings.Join(p.What, ", "), p.Before.text(), p.After.text()}
			if all {
				row = append([]string{map[bool]string{true: "yes", false: "no"}[p.Changed]}, row...)
			}
			t.add(row...)
		}
		if err := t.plain(&b); err != nil {
			return err
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%d of %d pairs change: more is allowed between %d, less between %d.\n", c.Changed, c.Pairs, c.Opened, c.Closed)
	_, err := e.Out.Write(b.Bytes())
	return err
}

func (v verdictChange) text() string { return v.Verdict + " (" + v.By + ")" }
