package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sync/errgroup"
)

// Client is a namespace to ask from.
type Client struct {
	Name  string
	Netns string       // path of the file that holds it
	Own   []netip.Addr // its addresses: one of these is what a server must see
}

// Server is who is asked, at each of its addresses.
type Server struct {
	Name  string
	Addrs []netip.Addr
}

// Result is the outcome of one question.
type Result struct {
	Client   string     `json:"client"`
	Server   string     `json:"server"`
	Addr     netip.Addr `json:"addr"`
	Protocol Protocol   `json:"protocol"`
	// Error says why there was no good answer; empty if there was one.
	Error string `json:"error,omitempty"`
	// Source says that there was an answer, but the server saw another's address.
	Source bool `json:"otherSource,omitempty"`
}

// Matrix is the outcome of asking every server from every client.
type Matrix struct {
	Clients []string `json:"clients"`
	Servers []string `json:"servers"`
	Results []Result `json:"results"`
}

// askers bounds how many questions are asked at once.
const askers = 64

// AskAll asks every server at each of its addresses, from every client by every
// protocol, each until there is a good answer or ctx is done. A client is asked
// by families that it has.
func AskAll(ctx context.Context, clients []Client, servers []Server) *Matrix {
	m := &Matrix{}
	for _, s := range servers {
		m.Servers = append(m.Servers, s.Name)
	}
	var group errgroup.Group
	group.SetLimit(askers)
	type question struct {
		client Client
		result *Result
	}
	var questions []question
	for _, c := range clients {
		m.Clients = append(m.Clients, c.Name)
		for _, s := range servers {
			for _, a := range s.Addrs {
				if !slices.ContainsFunc(c.Own, func(o netip.Addr) bool { return o.Is4() == a.Is4() }) {
					continue
				}
				for _, p := range Protocols() {
					questions = append(questions, question{c, &Result{Client: c.Name, Server: s.Name, Addr: a, Protocol: p}})
				}
			}
		}
	}
	for _, q := range questions {
		group.Go(func() error {
			r := q.result
			if err := AskUntil(ctx, q.client.Netns, r.Protocol, r.Addr, q.client.Own); err != nil {
				r.Error, r.Source = err.Error(), errors.Is(err, ErrSource)
			}
			return nil
		})
	}
	_ = group.Wait() // each question keeps its own error
	for _, q := range questions {
		m.Results = append(m.Results, *q.result)
	}
	return m
}

// Failed returns the results that are failures.
func (m *Matrix) Failed() []Result {
	return slices.DeleteFunc(slices.Clone(m.Results), func(r Result) bool { return r.Error == "" })
}

// Write prints the matrix: a row for each client, a column for each server, and
// below it each failure, those of one pair and protocol together.
func (m *Matrix) Write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "FROM \\ TO\t%s\n", strings.Join(m.Servers, "\t"))
	for _, c := range m.Clients {
		fmt.Fprint(tw, c)
		for _, s := range m.Servers {
			fmt.Fprintf(tw, "\t%s", m.mark(c, s))
		}
		fmt.Fprintln(tw)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	failed := m.Failed()
	if len(failed) == 0 {
		_, err := fmt.Fprintf(w, "\nok: all %d questions answered (ping, TCP and UDP, each server saw the client's own address)\n", len(m.Results))
		return err
	}
	fmt.Fprintf(w, "\nA mark holds what failed: p ping, t TCP, u UDP, s the server saw another address; 4 or 6 the family.\n")
	for _, r := range failed {
		fmt.Fprintf(w, "%s to %s (%s) by %s: %s\n", r.Client, r.Server, r.Addr, r.Protocol, r.Error)
	}
	_, err := fmt.Fprintf(w, "failed: %d of %d questions\n", len(failed), len(m.Results))
	return err
}

// mark sums up a pair: a tick, what failed, or a dash if nothing was asked.
func (m *Matrix) mark(client, server string) string {
	asked, fails := false, map[string]string{}
	for _, r := range m.Results {
		if r.Client != client || r.Server != server {
			continue
		}
		asked = true
		family := "4"
		if r.Addr.Is6() {
			family = "6"
		}
		switch {
		case r.Source:
			if !strings.Contains(fails[family], "s") {
				fails[family] += "s"
			}
		case r.Error != "":
			fails[family] += string(r.Protocol[:1])
		}
	}
	switch {
	case !asked:
		return "-"
	case len(fails) == 0:
		return "✓"
	}
	var marks []string
	for _, f := range []string{"4", "6"} {
		if fails[f] != "" {
			marks = append(marks, fails[f]+f)
		}
	}
	return strings.Join(marks, ",")
}
