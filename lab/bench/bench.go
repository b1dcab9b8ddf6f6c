// Package bench measures a lab: how long it takes to add a pod, how fast a new
// block is known everywhere, how quickly agents start, how much memory they take,
// and what the data path costs.
//
// It guarantees that each figure is a median of several, and that what it is
// compared with was measured in the same run, in turn: this machine is as noisy
// for the one as for the other. It judges nothing.
package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/topology"
)

// Options says what to measure and with what.
type Options struct {
	Root string // folder of all labs
	Bin  string // folder of cairn, cairn-cni and cairn-lab
	// Peers is a folder with the CNI plug-ins ptp and host-local, the yardstick of
	// pod ADD; "" leaves it out.
	Peers  string
	Rounds int // samples of each figure
	// Only, when not empty, names the parts to measure.
	Only []string
	// Progress is told each step as it begins.
	Progress func(step string)
}

// Row is one figure. One without samples is the head of those that follow.
type Row struct {
	Name      string
	Unit      string // "ms", "MiB", "Gbit/s", "µs"
	Samples   []float64
	Yardstick string // what it is compared with; "" for nothing
	Compared  []float64
	Aim       string // in words
}

// bench is a run under way.
type bench struct {
	Options
	lab  *lab.Lab
	rows []Row
}

// Run brings a lab of four nodes up, measures it, takes it down and returns the
// figures.
func Run(ctx context.Context, o Options) (rows []Row, err error) {
	file, err := topology.Named(topology.Plain)
	if err != nil {
		return nil, err
	}
	t, err := topology.Parse(file)
	if err != nil {
		return nil, err
	}
	t.Name = "bench"
	b := &bench{Options: o}
	if b.lab, err = lab.Up(ctx, t, lab.Options{Root: o.Root, Bin: o.Bin, Progress: o.Progress}); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lab.Down(context.WithoutCancel(ctx), o.Root, t.Name)) }()
	for _, p := range b.parts() {
		if len(o.Only) > 0 && !slices.Contains(o.Only, p.name) {
			continue
		}
		o.Progress("measuring " + p.what)
		if err := p.do(ctx); err != nil {
			return b.rows, fmt.Errorf("measure %s: %w", p.what, err)
		}
	}
	return b.rows, nil
}

// part is one thing to measure.
type part struct {
	name, what string
	do         func(context.Context) error
}

func (b *bench) parts() []part {
	return []part{
		{"memory", "memory of an idle agent", b.memory},
		{"start", "the start of agents", b.starts},
		{"pods", "adding and removing pods", b.pods},
		{"burst", "a hundred pods at once", b.burst},
		{"announce", "announcing blocks", b.announcements},
		{"traffic", "the data path", b.traffic},
		{"vxlan", "the data path by VXLAN", b.tunnels(vxlanTraffic)},
		{"ipip", "the data path by IPIP", b.tunnels(ipipTraffic)},
		{"scale", "an agent in a large cluster", b.scale},
		{"policies", "what policies cost an agent", b.alone(b.policyCosts)},
		{"policypath", "the data path with policies", b.alone(b.policyPaths)},
	}
}

// Parts returns the names of what can be measured.
func Parts() []string {
	var names []string
	for _, p := range new(bench).parts() {
		names = append(names, p.name)
	}
	return names
}

// alone measures while the agents and the router of the lab of four nodes rest: they listen
// to changes of nftables, and for those who do the kernel makes messages, in whatever
// namespace they are.
func (b *bench) alone(do func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error { return b.resting(ctx, append([]string{"tor"}, nodes...), do) }
}

// resting does something while the agents of some nodes, or routers, are stopped.
func (b *bench) resting(ctx context.Context, idle []string, do func(context.Context) error) (err error) {
	for _, n := range idle {
		if err := b.lab.Stop(ctx, n); err != nil {
			return err
		}
	}
	defer func() {
		for _, n := range idle {
			err = errors.Join(err, b.lab.Start(ctx, n))
		}
		err = errors.Join(err, b.lab.WaitBGP(ctx, nodes...))
	}()
	return do(ctx)
}

func (b *bench) add(r Row) { b.rows = append(b.rows, r) }

// scratch returns the path of a namespace of the benchmark's own; Down removes
// what is left of them.
func (b *bench) scratch(name string) (string, error) {
	path, err := b.lab.Netns("n1")
	return filepath.Join(filepath.Dir(path), "bench."+name), err
}

// quantile returns the smallest sample that a share q of all don't exceed.
func quantile(samples []float64, q float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(samples))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

// ms returns a duration in milliseconds.
func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Write prints the figures as a table.
func Write(w io.Writer, rows []Row) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "FIGURE\tUNIT\tN\tMEDIAN\tP90\tYARDSTICK\tMEDIAN\tRATIO\tAIM")
	for _, r := range rows {
		if len(r.Samples) == 0 {
			fmt.Fprintf(tw, "\n%s\n", r.Name)
			continue
		}
		compared, ratio := "-", "-"
		if len(r.Compared) > 0 {
			compared = digits(quantile(r.Compared, 0.5))
			ratio = fmt.Sprintf("%.2f", quantile(r.Samples, 0.5)/quantile(r.Compared, 0.5))
		}
		fmt.Fprintf(tw, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, r.Unit, len(r.Samples),
			digits(quantile(r.Samples, 0.5)), digits(quantile(r.Samples, 0.9)), cmp.Or(r.Yardstick, "-"), compared, ratio, cmp.Or(r.Aim, "-"))
	}
	return tw.Flush()
}

// digits prints three significant ones.
func digits(v float64) string {
	if v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
