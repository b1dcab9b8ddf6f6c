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

// Question is what to ask: from a client, of a server at one address, by every
// protocol.
type Question struct {
	Client, Server string     // names
	Netns          string     // path of the file that holds the client's namespace
	Addr           netip.Addr // the server's
	// Own returns the addresses that the server must see one of. It is called for each
	// try: what is asked may be under change.
	Own func() []netip.Addr
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

// AskAll asks every question by every protocol, each until there is a good answer
// or ctx is done.
func AskAll(ctx context.Context, questions []Question) *Matrix {
	m := &Matrix{}
	for _, q := range questions {
		if !slices.Contains(m.Clients, q.Client) {
			m.Clients = append(m.Clients, q.Client)
		}
		if !slices.Contains(m.Servers, q.Server) {
			m.Servers = append(m.Servers, q.Server)
		}
	}
	var group errgroup.Group
	group.SetLimit(askers)
	m.Results = make([]Result, len(questions)*len(Protocols()))
	for i, q := range questions {
		for j, proto := range Protocols() {
			r := &m.Results[i*len(Protocols())+j]
			*r = Result{Client: q.Client, Server: q.Server, Addr: q.Addr, Protocol: proto}
			group.Go(func() error {
				if err := AskUntil(ctx, q.Netns, proto, q.Addr, q.Own); err != nil {
					r.Error, r.Source = err.Error(), errors.Is(err, ErrSource)
				}
				return nil
			})
		}
	}
	_ = group.Wait() // each question keeps its own error
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
		_, err := fmt.Fprintf(w, "\nok: all %d questions answered (ping, TCP and UDP, each server saw the address it should)\n", len(m.Results))
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
