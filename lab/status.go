package lab

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/lab/topology"
)

// Status is what there is of a lab.
type Status struct {
	Name  string       `json:"name"`
	Dir   string       `json:"dir"`
	Hosts []HostStatus `json:"hosts"`
	Pods  []Pod        `json:"pods,omitempty"`
}

// HostStatus is the state of a host.
type HostStatus struct {
	Name    string   `json:"name"`
	Segment string   `json:"segment,omitempty"` // empty: in all of them
	Role    string   `json:"role"`              // node, router or datastore
	Addrs   []string `json:"addrs"`
	Daemon  string   `json:"daemon"`  // its name; empty: there is none
	Process string   `json:"process"` // process ID, or why there is none
	State   string   `json:"state,omitempty"`
}

// Status returns what there is of the lab and asks the agents how they are.
func (l *Lab) Status(ctx context.Context) (*Status, error) {
	s := &Status{Name: l.Name(), Dir: l.dir}
	t := l.Topology
	s.Hosts = append(s.Hosts, l.hostStatus(t.Etcd, "datastore", "etcd"))
	for _, r := range t.Routers {
		h := topology.Host{Name: r.Name}
		for _, p := range r.Ports {
			h.Addrs = append(h.Addrs, p.Addrs...)
		}
		daemon := string(r.Speaker)
		if r.Speaker == topology.SpeakerNone {
			daemon = ""
		}
		s.Hosts = append(s.Hosts, l.hostStatus(h, "router", daemon))
	}
	for _, n := range t.Nodes {
		h := l.hostStatus(n, "node", "agent")
		if l.Running(n.Name) {
			h.State = l.agentState(ctx, n.Name)
		}
		s.Hosts = append(s.Hosts, h)
	}
	var err error
	s.Pods, err = l.Pods()
	return s, err
}

func (l *Lab) hostStatus(h topology.Host, role, daemon string) HostStatus {
	s := HostStatus{Name: h.Name, Segment: h.Segment, Role: role, Daemon: daemon}
	for _, a := range h.Addrs {
		s.Addrs = append(s.Addrs, a.String())
	}
	if daemon != "" {
		s.Process = l.pidText(h.Name)
	}
	return s
}

// agentState sums up what an agent says of itself.
func (l *Lab) agentState(ctx context.Context, node string) string {
	s, err := l.AgentStatus(ctx, node)
	if err != nil {
		return err.Error()
	}
	var parts []string
	for _, name := range []string{v1.ConditionReady, v1.ConditionDatastore, v1.ConditionProgrammed} {
		if err := condition(s, name); err != nil {
			parts = append(parts, err.Error())
		}
	}
	if len(parts) == 0 {
		parts = append(parts, "ready")
	}
	up := 0
	for _, p := range s.Status.BGP.Peers {
		if p.State == "Established" {
			up++
		}
	}
	return strings.Join(append(parts, fmt.Sprintf("BGP %d/%d", up, len(s.Status.BGP.Peers))), ", ")
}

// Write prints the status as tables.
func (s *Status) Write(w io.Writer) error {
	fmt.Fprintf(w, "lab %s in %s\n\n", s.Name, s.Dir)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "HOST\tROLE\tRACK\tADDRESSES\tDAEMON\tPROCESS\tSTATE")
	for _, h := range s.Hosts {
		addrs := strings.Join(h.Addrs, " ")
		if h.Role == "router" {
			addrs = fmt.Sprintf("%d, in every subnet", len(h.Addrs))
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", h.Name, h.Role, or(h.Segment), addrs, or(h.Daemon), or(h.Process), or(h.State))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if len(s.Pods) == 0 {
		_, err := fmt.Fprintln(w, "\nno pods")
		return err
	}
	fmt.Fprintln(w)
	fmt.Fprintln(tw, "POD\tNODE\tADDRESSES\tLABELS")
	for _, p := range s.Pods {
		addrs := make([]string, len(p.Addrs))
		for i, a := range p.Addrs {
			addrs[i] = a.String()
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", p, p.Node, or(strings.Join(addrs, " ")), or(labelText(p.Labels)))
	}
	return tw.Flush()
}

// or returns a dash for an empty text, as columns want it.
func or(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
