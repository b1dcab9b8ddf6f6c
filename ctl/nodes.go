package ctl

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
)

// staleAfter is the age from which a report says nothing of its node any more:
// three times the longest pause between two reports.
const staleAfter = 3 * time.Minute

// nodeReport is a node and what its agent said last; either may be missing.
type nodeReport struct {
	name   string
	node   *v1.Node
	status *v1.NodeStatus
}

func (e *env) showNodes(cmd *cobra.Command, f format) error {
	store, err := e.open()
	if err != nil {
		return err
	}
	nodes, err := e.list(cmd.Context(), store, "Node")
	if err != nil {
		return err
	}
	statuses, err := e.list(cmd.Context(), store, "NodeStatus")
	if err != nil {
		return err
	}
	if f.machine() {
		return f.write(e.Out, listOf(statuses))
	}
	return writeNodes(e.Out, join(nodes, statuses), f, e.Now())
}

// join brings nodes and reports together, ordered by name.
func join(nodes, statuses []v1.Object) []nodeReport {
	byName := map[string]nodeReport{}
	for _, o := range nodes {
		if n, ok := o.(*v1.Node); ok {
			byName[n.Name] = nodeReport{name: n.Name, node: n}
		}
	}
	for _, o := range statuses {
		if s, ok := o.(*v1.NodeStatus); ok {
			byName[s.Name] = nodeReport{name: s.Name, node: byName[s.Name].node, status: s}
		}
	}
	return slices.SortedFunc(maps.Values(byName), func(a, b nodeReport) int { return cmp.Compare(a.name, b.name) })
}

func writeNodes(w io.Writer, reports []nodeReport, f format, now time.Time) error {
	if len(reports) == 0 {
		_, err := fmt.Fprintln(w, "No nodes found.")
		return err
	}
	summary := &table{head: []string{"NODE", "READY", "IPV4 PEERS", "IPV6 PEERS", "ROUTES", "PODS", "ISSUES", "AGE"}}
	if f.wide() {
		summary.head = append(summary.head, "VERSION", "AS", "ROUTER ID", "TUNNELS", "NOT IN ORDER")
	}
	peers := &table{}
	for _, r := range reports {
		summary.add(r.summary(f, now)...)
		if r.status == nil {
			continue
		}
		for _, family := range []string{"IPv4", "IPv6"} {
			t := peerTable(r.status.Status.BGP.Peers, family, f, now)
			peers.head = append([]string{"NODE"}, t.head...)
			for _, row := range t.rows {
				peers.add(append([]string{r.name}, row...)...)
			}
		}
	}
	if err := summary.bordered(w); err != nil {
		return err
	}
	if len(peers.rows) == 0 {
		fmt.Fprintln(w, "\nNo BGP peers found.")
	} else {
		fmt.Fprintln(w, "\nBGP status")
		if err := peers.bordered(w); err != nil {
			return err
		}
	}
	return writeIssues(w, reports)
}

// summary is a node's line.
func (r nodeReport) summary(f format, now time.Time) []string {
	if r.status == nil {
		row := []string{r.name, "no report", "-", "-", "-", "-", "-", "-"}
		if f.wide() {
			row = append(row, "-", "-", "-", "-", "the agent never reported")
		}
		return row
	}
	st := r.status.Status
	ready, age := "no", duration(now.Sub(st.UpdatedAt.Time))
	if meta.IsStatusConditionTrue(st.Conditions, v1.ConditionReady) {
		ready = "yes"
	}
	if now.Sub(st.UpdatedAt.Time) > staleAfter {
		ready, age = "unknown", age+" (stale)"
	}
	if r.node == nil {
		ready = "no Node"
	}
	routes := strconv.Itoa(st.Routes.Applied)
	if st.Routes.Applied != st.Routes.Wanted || st.Routes.Failed > 0 {
		routes = fmt.Sprintf("%d/%d", st.Routes.Applied, st.Routes.Wanted)
	}
	row := []string{r.name, ready, upOf(st.BGP.Peers, "IPv4"), upOf(st.BGP.Peers, "IPv6"), routes,
		strconv.Itoa(st.Pods), strconv.Itoa(len(st.Issues)), age}
	if f.wide() {
		as := "-" // no speaker
		if st.BGP.ASNumber != 0 {
			as = strconv.FormatUint(uint64(st.BGP.ASNumber), 10)
		}
		row = append(row, st.Agent.Version, as, st.BGP.RouterID, tunnelsOf(st.Tunnels), notInOrder(st.Conditions))
	}
	return row
}

// tunnelsOf names the tunnel devices, and the state of those that are not Up.
func tunnelsOf(tunnels []v1.TunnelStatus) string {
	var all []string
	for _, t := range tunnels {
		text := t.Device
		if t.State != v1.TunnelUp {
			text += " (" + t.State + ")"
		}
		all = append(all, text)
	}
	return cmp.Or(strings.Join(all, ", "), "-")
}

// upOf counts the sessions of a family that are up, and all.
func upOf(peers []v1.BGPPeerStatus, family string) string {
	up, total := 0, 0
	for _, p := range peers {
		if familyOf(p) != family {
			continue
		}
		total++
		if isUp(p) {
			up++
		}
	}
	return fmt.Sprintf("%d/%d", up, total)
}

// notInOrder says which conditions are not true, and why.
func notInOrder(conditions []metav1.Condition) string {
	var bad []string
	for _, c := range conditions {
		if c.Status == metav1.ConditionTrue {
			continue
		}
		text := c.Type
		if c.Message != "" {
			text += " (" + c.Message + ")"
		}
		bad = append(bad, text)
	}
	return strings.Join(bad, "; ")
}

// writeIssues writes each fault once, with the nodes that found it.
func writeIssues(w io.Writer, reports []nodeReport) error {
	found := map[string][]string{}
	for _, r := range reports {
		if r.status == nil {
			continue
		}
		for _, i := range r.status.Status.Issues {
			text := issueText(i)
			if !slices.Contains(found[text], r.name) {
				found[text] = append(found[text], r.name)
			}
		}
	}
	if len(found) == 0 {
		return nil
	}
	fmt.Fprintln(w, "\nIssues:")
	for _, text := range slices.Sorted(maps.Keys(found)) {
		if _, err := fmt.Fprintf(w, "  %s (found by %s)\n", text, strings.Join(found[text], ", ")); err != nil {
			return err
		}
	}
	return nil
}
