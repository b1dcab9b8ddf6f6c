package ctl

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/config"
	"cairn.network/cairn/policy"
	"cairn.network/cairn/selector"
)

// verdictPartly says that packets of some kinds are allowed and others are not.
const verdictPartly = "partly"

// verdictNone says that there are no such packets: no common family, or no such port.
const verdictNone = "none"

// marks are how verdicts look in a matrix.
var marks = map[string]string{verdictAllowed: ".", verdictDenied: "X", verdictPartly: "~", verdictNone: " "}

// chosen says which pods are looked at.
type chosenPods struct{ namespace, selector string }

func (p *chosenPods) addFlags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVarP(&p.namespace, "namespace", "n", "", "only pods of this namespace (default of all)")
	fs.StringVarP(&p.selector, "selector", "l", "", "only pods that this selector chooses, such as \"app == 'web'\"")
	config.CallOnly(fs, "namespace", "selector")
}

// of returns the pods that are chosen, in order.
func (p *chosenPods) of(c *cluster) ([]end, error) {
	all := selector.All()
	if p.selector != "" {
		parsed, err := selector.Parse(p.selector)
		if err != nil {
			return nil, misuse("--selector %q: %v", p.selector, err)
		}
		all = parsed
	}
	var ends []end
	for _, w := range c.pods {
		n := podEnd(w)
		if p.namespace != "" && w.Namespace != p.namespace || len(n.addrs) == 0 || !all.Matches(c.labels(w)) {
			continue
		}
		if len(podsNamed(c.pods, w.Namespace, podName(w))) > 1 {
			n.name = w.Namespace + "/" + w.Name
		}
		ends = append(ends, n)
	}
	return ends, nil
}

// labels returns what selectors see of a pod.
func (c *cluster) labels(w *v1.WorkloadEndpoint) policy.EffectiveLabels {
	e := policy.FromWorkloadEndpoint(w)
	account := policy.ID{Namespace: e.Namespace, Name: e.ServiceAccount}
	return policy.EffectiveLabels{Endpoint: e, Namespace: c.world.Namespaces[e.Namespace], Account: c.world.ServiceAccounts[account]}
}

func (e *env) policyMatrix() *cobra.Command {
	var f format
	var from source
	var a asked
	var pods chosenPods
	cmd := &cobra.Command{
		Use:   "matrix",
		Short: "Show which pods may talk to which",
		Long: `Show a table of pods by pods: each row is a source, each column a destination, with
the number of its row.

  .  allowed      X  denied
  ~  some ports, protocols or addresses are allowed, others are not
     (blank) there are no such packets: no address of a common family, or no
     port of that name

Without --port and --protocol it is about everything that policies tell apart. Pods
are not asked about themselves.`,
		Example: `  cairn ctl policy matrix
  cairn ctl policy matrix -n shop --port 5432
  cairn ctl policy matrix -l "pcns.team == 'shop'" --port http
  cairn ctl policy matrix -f cluster.yaml -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.check(); err != nil {
				return err
			}
			if _, err := pods.of(&cluster{}); err != nil {
				return err
			}
			c, err := e.cluster(cmd.Context(), &from)
			if err != nil {
				return err
			}
			ends, err := pods.of(c)
			if err != nil {
				return err
			}
			if len(ends) == 0 {
				fmt.Fprintln(e.Err, "No pods found.")
			}
			return e.showMatrix(matrixOf(c, ends, &a), f)
		},
	}
	addFormat(cmd, &f)
	from.addFlags(cmd)
	a.addFlags(cmd, false)
	pods.addFlags(cmd)
	return cmd
}

// matrix is which pods may talk to which.
type matrix struct {
	Pods    []string     `json:"pods"`
	Allowed int          `json:"allowed"` // pairs
	Denied  int          `json:"denied"`
	Partly  int          `json:"partly"`
	None    int          `json:"none"`
	Pairs   []matrixPair `json:"pairs"`
}

// matrixPair is what becomes of packets from one pod to another.
type matrixPair struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Verdict is "allowed", "denied", "partly" or "none".
	Verdict string `json:"verdict"`
	// Allows are the packets that are allowed of those that are partly so.
	Allows []string `json:"allows,omitempty"`
}

func matrixOf(c *cluster, ends []end, a *asked) *matrix {
	p := newPairs(a, c)
	m := &matrix{Pods: []string{}, Pairs: []matrixPair{}}
	all := p.members(ends)
	for i, from := range all {
		m.Pods = append(m.Pods, from.name)
		for j, to := range all {
			if i == j {
				continue
			}
			pair := summed(p.between(from.end, to.end, from.class, to.class))
			pair.From, pair.To = from.name, to.name
			m.Pairs = append(m.Pairs, pair)
			switch pair.Verdict {
			case verdictAllowed:
				m.Allowed++
			case verdictDenied:
				m.Denied++
			case verdictPartly:
				m.Partly++
			default:
				m.None++
			}
		}
	}
	return m
}

// summed returns the verdict on a pair from those on packets between the two.
func summed(all []passage) matrixPair {
	var pair matrixPair
	denied := 0
	for _, o := range all {
		if o.verdicts[0].Allowed {
			pair.Allows = append(pair.Allows, familyWhat(o, all, 0))
		} else {
			denied++
		}
	}
	pair.Allows = slices.Compact(slices.Sorted(slices.Values(pair.Allows)))
	switch {
	case len(all) == 0:
		pair.Verdict = verdictNone
	case denied == 0:
		pair.Verdict, pair.Allows = verdictAllowed, nil
	case denied == len(all):
		pair.Verdict = verdictDenied
	default:
		pair.Verdict = verdictPartly
	}
	return pair
}

// familyWhat names packets, with their family if those of the other have another
// verdict of a world.
func familyWhat(o passage, all []passage, world int) string {
	differs := slices.ContainsFunc(all, func(p passage) bool {
		return p.what == o.what && p.verdicts[world].Allowed != o.verdicts[world].Allowed
	})
	switch {
	case !differs:
		return o.what
	case o.v6:
		return "IPv6 " + o.what
	}
	return "IPv4 " + o.what
}

func (e *env) showMatrix(m *matrix, f format) error {
	if f.machine() {
		return f.write(e.Out, m)
	}
	var b bytes.Buffer
	m.write(&b)
	_, err := e.Out.Write(b.Bytes())
	return err
}

// write writes the table: heads of columns are numbers, written downwards.
func (m *matrix) write(b *bytes.Buffer) {
	n := len(m.Pods)
	if n == 0 {
		return
	}
	digits := len(strconv.Itoa(n))
	width := 0
	for _, name := range m.Pods {
		width = max(width, len(name))
	}
	for row := range digits {
		line := strings.Repeat(" ", digits+2+width+1)
		for i := range n {
			line += " " + fmt.Sprintf("%*d", digits, i+1)[row:row+1]
		}
		fmt.Fprintln(b, strings.TrimRight(line, " "))
	}
	next := 0
	for i, name := range m.Pods {
		line := fmt.Sprintf("%*d  %-*s ", digits, i+1, width, name)
		for j := range n {
			mark := "-"
			if i != j {
				mark = marks[m.Pairs[next].Verdict]
				next++
			}
			line += " " + mark
		}
		fmt.Fprintln(b, strings.TrimRight(line, " "))
	}
	fmt.Fprintln(b, "\nrows: sources; columns: destinations; . allowed, X denied, ~ partly")
	fmt.Fprintf(b, "%d pairs: %d allowed, %d denied, %d partly", len(m.Pairs), m.Allowed, m.Denied, m.Partly)
	if m.None > 0 {
		fmt.Fprintf(b, ", %d without such packets", m.None)
	}
	fmt.Fprintln(b)
}
