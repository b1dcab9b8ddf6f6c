package ctl

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cairn.network/cairn/agent/localapi"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/config"
)

func (e *env) node() *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "See what nodes do"}
	cmd.AddCommand(e.nodeStatus())
	return cmd
}

func (e *env) nodeStatus() *cobra.Command {
	var f format
	var all bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show this node's agent, BGP sessions and tunnels, or all nodes",
		Long: `Show the state of this node's agent, of its BGP sessions and of its tunnels.

STATE of a session is up for an established session, down for one that is idle, start between
them. SINCE is when the session came into its state: the time of day, or the date
if that is another. INFO is the state in the words of RFC 4271 and, where the
session is not up, the last error. -o wide adds more of each session; of its
prefixes it counts IPv4/IPv6.

STATE of a tunnel device is Up; Listening if the node sends nothing through it any
more and keeps it for others that may; or Failing, with the reason. REMOTE NODES is
to how many nodes packets go through it. Of WireGuard each peer is shown with the
time since the last handshake, and what was received and sent.

With --all, show every node, from the reports that the agents keep in the
datastore: one line for each node, one for each session, and the faults that
agents found in resources. An agent reports at least once a minute; a report
older than three minutes is marked stale, and whether its node is ready is not
known any more.`,
		Example: `  cairn ctl node status
  cairn ctl node status -o wide
  cairn ctl node status --all
  cairn ctl node status --all -o json | jq '.items[].status.bgp.peers'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all {
				return e.showNodes(cmd, f)
			}
			return e.showNode(cmd, f)
		},
	}
	addFormat(cmd, &f)
	cmd.Flags().BoolVar(&all, "all", false, "every node, from the datastore")
	config.CallOnly(cmd.Flags(), "all")
	return cmd
}

func (e *env) showNode(cmd *cobra.Command, f format) error {
	ctx, cancel := e.agentContext(cmd)
	defer cancel()
	s, err := e.agent().Status(ctx)
	if err != nil {
		if errors.Is(err, localapi.ErrNotRunning) && !f.machine() {
			fmt.Fprintln(e.Out, "Cairn agent is not running.")
		}
		return err
	}
	if f.machine() {
		return f.write(e.Out, s)
	}
	return writeNode(e.Out, s, f, e.Now())
}

func writeNode(w io.Writer, s *v1.NodeStatus, f format, now time.Time) error {
	fmt.Fprintln(w, "Cairn agent is running.")
	for _, c := range s.Status.Conditions {
		// What is wrong with BGP its own part tells.
		if c.Status != metav1.ConditionTrue && c.Type != v1.ConditionBGP {
			fmt.Fprintf(w, "Not in order: %s: %s\n", c.Type, cmp.Or(c.Message, c.Reason))
		}
	}
	for _, part := range []func() error{
		func() error { return writeBGP(w, s.Status.BGP, f, now) },
		func() error { return writeTunnels(w, s.Status.Tunnels) },
		func() error { return writeWireGuard(w, s.Status.WireGuard, f, now) },
	} {
		if err := part(); err != nil {
			return err
		}
	}
	if len(s.Status.Issues) > 0 {
		fmt.Fprintln(w, "\nIssues:")
		for _, i := range s.Status.Issues {
			fmt.Fprintln(w, "  "+issueText(i))
		}
	}
	return nil
}

func writeBGP(w io.Writer, b v1.BGPStatus, f format, now time.Time) error {
	if b.Error != "" {
		fmt.Fprintf(w, "BGP is not running: %s\n", b.Error)
	}
	if len(b.Peers) == 0 {
		fmt.Fprintln(w, "\nBGP: no peers are configured; routes to other nodes come from the datastore alone.")
		return nil
	}
	for _, family := range []string{"IPv4", "IPv6"} {
		fmt.Fprintf(w, "\n%s BGP status\n", family)
		t := peerTable(b.Peers, family, f, now)
		if len(t.rows) == 0 {
			fmt.Fprintf(w, "No %s peers found.\n", family)
		} else if err := t.bordered(w); err != nil {
			return err
		}
	}
	return nil
}

// peerTable holds the sessions over one family.
func peerTable(peers []v1.BGPPeerStatus, family string, f format, now time.Time) *table {
	t := &table{head: []string{"PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"}}
	if f.wide() {
		t.head = append(t.head, "AS", "UPTIME", "FLAPS", "RECEIVED", "ACCEPTED", "ADVERTISED", "LAST ERROR")
	}
	for _, p := range peers {
		if familyOf(p) != family {
			continue
		}
		row := []string{p.Address, p.Type, peerState(p), since(p.Since.Time, now), peerInfo(p)}
		if f.wide() {
			uptime := "-"
			if isUp(p) {
				uptime = duration(now.Sub(p.Since.Time))
			}
			row = append(row, strconv.FormatUint(uint64(p.ASNumber), 10), uptime, strconv.FormatUint(p.Flaps, 10),
				both(p.IPv4.Received, p.IPv6.Received), both(p.IPv4.Accepted, p.IPv6.Accepted),
				both(p.IPv4.Advertised, p.IPv6.Advertised), p.LastError)
		}
		t.add(row...)
	}
	return t
}

// familyOf returns the family over which the session runs.
func familyOf(p v1.BGPPeerStatus) string {
	if a, err := netip.ParseAddr(p.Address); err == nil && a.Is6() {
		return "IPv6"
	}
	return "IPv4"
}

func both(ipv4, ipv6 uint64) string { return fmt.Sprintf("%d/%d", ipv4, ipv6) }

// States of a session as RFC 4271 names them; the others lie between these.
const (
	stateEstablished = "Established"
	stateIdle        = "Idle"
)

func isUp(p v1.BGPPeerStatus) bool { return p.State == stateEstablished }

// peerState says the state in the words of calicoctl.
func peerState(p v1.BGPPeerStatus) string {
	switch p.State {
	case stateEstablished:
		return "up"
	case stateIdle:
		return "down"
	}
	return "start"
}

func peerInfo(p v1.BGPPeerStatus) string {
	if isUp(p) || p.LastError == "" {
		return p.State
	}
	return p.State + ": " + p.LastError
}

// since says when something began: the time of day if it was today, else the
// date.
func since(at, now time.Time) string {
	if at.IsZero() {
		return "-"
	}
	at = at.In(now.Location())
	if at.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return at.Format(time.TimeOnly)
	}
	return at.Format(time.DateOnly)
}

// duration writes d with its two greatest units, such as 3d4h or 12s.
func duration(d time.Duration) string {
	d = max(d, 0).Truncate(time.Second)
	days := int(d.Hours()) / 24
	switch {
	case days > 0:
		return fmt.Sprintf("%dd%dh", days, int(d.Hours())%24)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%ds", int(d.Seconds()))
}

func issueText(i v1.Issue) string {
	parts := []string{i.Object}
	if i.Field != "" {
		parts = append(parts, i.Field)
	}
	return strings.Join(append(parts, i.Reason), ": ")
}
