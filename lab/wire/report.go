package wire

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
)

// Place is where packets are captured.
type Place string

// Places.
const (
	Fabric Place = "fabric" // the links of every host: each packet passes there
	Router Place = "router" // what goes from rack to rack passes there too
)

// Flow is the packets from one pod to another, on different nodes.
type Flow struct {
	From, To string // nodes
	Src, Dst netip.Addr
	// Apart says that the nodes are in different racks.
	Apart bool
}

// Log holds what was captured. Its methods may be called from any goroutine.
type Log struct {
	mu   sync.Mutex
	seen map[sighting]struct{}
}

type sighting struct {
	place Place
	Packet
}

// Add notes a packet.
func (l *Log) Add(at Place, p Packet) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = map[sighting]struct{}{}
	}
	l.seen[sighting{at, p}] = struct{}{}
}

// Row is how packets of one pool travel from one node to another.
type Row struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Pool     string `json:"pool"`
	Expected string `json:"expected"`
	// Seen holds the ways that packets were seen to travel, in order.
	Seen []string `json:"seen"`
	// Error says what is wrong; empty: nothing.
	Error string `json:"error,omitempty"`
}

// Report is how packets travel between all nodes.
type Report struct {
	Rows []Row `json:"rows"`
}

// Judge compares how the flows should travel with what was captured.
func Judge(c Cluster, flows []Flow, l *Log) (*Report, error) {
	type key struct{ from, to, pool, expected string }
	rows := map[key]*Row{}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range flows {
		want, err := c.Expect(f.From, f.To, f.Dst)
		if err != nil {
			return nil, fmt.Errorf("what to expect from %s to %s: %w", f.Src, f.Dst, err)
		}
		k := key{f.From, f.To, c.Pool(f.Dst).Name, want.String()}
		row := rows[k]
		if row == nil {
			row = &Row{From: k.from, To: k.to, Pool: k.pool, Expected: k.expected}
			rows[k] = row
		}
		seen, between := l.of(f, want)
		for t := range seen {
			text := t.String()
			if text == k.expected && t != want {
				text += fmt.Sprintf(" from %s to %s", t.From, t.To) // of other hosts
			}
			if !slices.Contains(row.Seen, text) {
				row.Seen = append(row.Seen, text)
			}
			if t != want {
				row.Error = cmp.Or(row.Error, fmt.Sprintf("%s > %s was seen as %s", f.Src, f.Dst, text))
			}
		}
		if !between {
			row.Error = cmp.Or(row.Error, fmt.Sprintf("%s > %s was not seen as expected", f.Src, f.Dst))
		}
		slices.Sort(row.Seen)
	}
	r := &Report{}
	for _, k := range slices.SortedFunc(maps.Keys(rows), func(a, b key) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to), cmp.Compare(a.pool, b.pool), cmp.Compare(a.expected, b.expected))
	}) {
		r.Rows = append(r.Rows, *rows[k])
	}
	return r, nil
}

// of returns the ways that a flow was seen to travel, and whether the one wanted
// was seen where it must be: between racks, at the router.
func (l *Log) of(f Flow, want Transport) (seen map[Transport]bool, between bool) {
	seen = map[Transport]bool{}
	for s := range l.seen {
		hidden := want.Kind == WireGuard && s.Transport == want // whatever is inside
		if !hidden && (s.Src != f.Src || s.Dst != f.Dst) {
			continue
		}
		seen[s.Transport] = true
		if s.Transport == want && (s.place == Router) == f.Apart {
			between = true
		}
	}
	return seen, between
}

// Failed returns the rows that are wrong.
func (r *Report) Failed() []Row {
	return slices.DeleteFunc(slices.Clone(r.Rows), func(r Row) bool { return r.Error == "" })
}

// Write prints the report as a table, and below it what is wrong.
func (r *Report) Write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "FROM\tTO\tPOOL\tEXPECTED\tSEEN\t")
	for _, row := range r.Rows {
		mark := "✓"
		if row.Error != "" {
			mark = "WRONG"
		}
		seen := cmp.Or(strings.Join(row.Seen, "; "), "nothing")
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", row.From, row.To, row.Pool, row.Expected, seen, mark)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	failed := r.Failed()
	if len(failed) == 0 {
		_, err := fmt.Fprintf(w, "\nok: packets travel as their pools say, %d of %d ways\n", len(r.Rows), len(r.Rows))
		return err
	}
	fmt.Fprintln(w)
	for _, row := range failed {
		fmt.Fprintf(w, "%s to %s, pool %s: %s\n", row.From, row.To, row.Pool, row.Error)
	}
	_, err := fmt.Fprintf(w, "failed: %d of %d ways\n", len(failed), len(r.Rows))
	return err
}
