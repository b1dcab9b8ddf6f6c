package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sync/errgroup"

	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/probe"
)

// Bounds of a round of exchanges: how long each waits for its answer, less than what TCP
// takes to send its first packet again, and how many there are at a time.
const (
	trafficWait = 500 * time.Millisecond
	trafficMost = 128
)

// line is a line of a file that says what traffic passes.
type line struct {
	text     string
	from, to string   // to may be an address
	what     []string // such as tcp:8080, icmp, icmp:17
	family   string   // ipv4 or ipv6; empty: both
	expect   probe.Expectation
}

// flow is an exchange of a line, and what it should show.
type flow struct {
	line     string
	exchange probe.Exchange
	expect   probe.Expectation
}

// traffic repeats the exchanges of a file until all end as it says, in one round.
func traffic(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: traffic TIME FILE")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	s := ts.Value(scriptKey{}).(*script)
	flows, err := s.flows(os.Expand(ts.ReadFile(args[1]), ts.Getenv))
	ts.Check(err)
	for start := time.Now(); ; {
		err := tryAll(flows)
		if err == nil {
			ts.Logf("%d exchanges after %s", len(flows), time.Since(start).Round(time.Millisecond))
			return
		}
		if time.Since(start) > limit {
			ts.Fatalf("not within %s:\n%v", limit, err)
		}
	}
}

// flows returns the exchanges that a file lists.
func (s *script) flows(text string) ([]flow, error) {
	lines, err := parseTraffic(text)
	if err != nil {
		return nil, err
	}
	l, err := lab.Open(s.Root, s.name)
	if err != nil {
		return nil, err
	}
	var all []flow
	for _, ln := range lines {
		flows, err := ln.flows(l)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ln.text, err)
		}
		all = append(all, flows...)
	}
	return all, nil
}

// parseTraffic reads lines FROM TO WHAT... [ipv4|ipv6] pass|none; # begins a comment.
func parseTraffic(text string) ([]line, error) {
	var lines []line
	for raw := range strings.SplitSeq(text, "\n") {
		said, _, _ := strings.Cut(raw, "#")
		words := strings.Fields(said)
		if len(words) == 0 {
			continue
		}
		if len(words) < 4 {
			return nil, fmt.Errorf("%s: want FROM TO WHAT... pass|none", raw)
		}
		ln := line{text: strings.Join(words, " "), from: words[0], to: words[1], what: words[2 : len(words)-1]}
		ln.expect = probe.Expectation(words[len(words)-1])
		if ln.expect != probe.ExpectPass && ln.expect != probe.ExpectNone {
			return nil, fmt.Errorf("%s: want %s or %s at its end", raw, probe.ExpectPass, probe.ExpectNone)
		}
		if last := ln.what[len(ln.what)-1]; len(ln.what) > 1 && (last == "ipv4" || last == "ipv6") {
			ln.family, ln.what = last, ln.what[:len(ln.what)-1]
		}
		lines = append(lines, ln)
	}
	if len(lines) == 0 {
		return nil, errors.New("there are no exchanges")
	}
	return lines, nil
}

// flows returns the exchanges of a line: each protocol by each family that there is.
func (ln line) flows(l *lab.Lab) ([]flow, error) {
	path, err := l.Where(ln.from)
	if err != nil {
		return nil, err
	}
	addrs, err := addressesOf(l, ln.to)
	if err != nil {
		return nil, err
	}
	var all []flow
	for _, what := range ln.what {
		found := false
		for _, a := range addrs {
			if ln.family != "" && a.Is4() != (ln.family == "ipv4") {
				continue
			}
			e, ok, err := exchange(what, a)
			if err != nil {
				return nil, err
			}
			if ok {
				e.Netns, found = path, true
				all = append(all, flow{ln.text, e, ln.expect})
			}
		}
		if !found {
			return nil, fmt.Errorf("%s has no address for %s", ln.to, what)
		}
	}
	return all, nil
}

// exchange returns what a word such as tcp:8080 means for an address; false if it means
// nothing in its family: a type of ICMP of the other.
func exchange(what string, a netip.Addr) (probe.Exchange, bool, error) {
	proto, detail, detailed := strings.Cut(what, ":")
	if proto != string(probe.ICMP) {
		e, err := probe.ParseExchange(proto, "["+a.String()+"]:"+detail)
		if a.Is4() {
			e, err = probe.ParseExchange(proto, a.String()+":"+detail)
		}
		return e, err == nil, err
	}
	e, err := probe.ParseExchange(proto, a.String())
	if err != nil || !detailed {
		return e, err == nil, err
	}
	kind, err := strconv.ParseUint(detail, 10, 8)
	if err != nil {
		return e, false, fmt.Errorf("%s: type of ICMP: %w", what, err)
	}
	e.Type = uint8(kind)
	return e, slices.Contains(probe.ICMPTypes(a), e.Type), nil
}

// addressesOf returns the addresses of a pod or a node, or the one that it is.
func addressesOf(l *lab.Lab, name string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{a}, nil
	}
	if namespace, pod, found := strings.Cut(name, "/"); found {
		p, err := l.Pod(namespace, pod)
		return p.Addrs, err
	}
	node, found := l.Topology.Node(name)
	if !found {
		return nil, fmt.Errorf("%s is no address, pod or node", name)
	}
	var addrs []netip.Addr
	for _, p := range node.Addrs {
		addrs = append(addrs, p.Addr())
	}
	return addrs, nil
}

// tryAll tries all these at once, and says which did not end as they should.
func tryAll(flows []flow) error {
	errs := make([]error, len(flows))
	var group errgroup.Group
	group.SetLimit(trafficMost)
	for i, f := range flows {
		group.Go(func() error {
			errs[i] = f.try()
			return nil
		})
	}
	_ = group.Wait() // each keeps its own error
	return errors.Join(errs...)
}

// try tries an exchange once, and returns how it ended if not as it should.
func (f flow) try() error {
	ctx, cancel := context.WithTimeout(context.Background(), trafficWait)
	defer cancel()
	a, err := f.exchange.Try(ctx)
	switch {
	case err == nil && f.expect == probe.ExpectNone:
		return fmt.Errorf("%s: %s: %s", f.line, f.exchange, a)
	case err == nil || f.expect == probe.ExpectNone && errors.Is(err, probe.ErrNoAnswer):
		return nil
	}
	return fmt.Errorf("%s: %s: %w", f.line, f.exchange, err)
}
