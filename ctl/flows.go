package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cairn.network/cairn/agent/localapi"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/config"
)

// flowFlags is what a call of flows asks for.
type flowFlags struct {
	format
	follow, denied bool
	pod, address   string
	count          int
}

func (e *env) flows() *cobra.Command {
	var f flowFlags
	cmd := &cobra.Command{
		Use:   "flows",
		Short: "Show what policies did with packets on this node",
		Long: `Show what policies did with packets on this node: the last thousand that were denied,
or that a rule with the action Log matched. With --follow, go on with those to come,
and with the first packet of each connection that is allowed.

VERDICT is allow, deny or log. DIRECTION is the one in which the policy's endpoint sees
it: egress is decided where the packet begins, ingress where it ends. RULE is the
number of the policy's rule, from 1; default is the tier's default action.

When more than a thousand packets of a sort come in a second, the others are not
told: "lost" says how many at least. Counters count all (cairn ctl policy counters).`,
		Example: `  cairn ctl flows --denied
  cairn ctl flows --follow --pod default/web
  cairn ctl flows --follow --address 10.244.1.7 --count 10 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.showFlows(cmd.Context(), f) },
	}
	addFormat(cmd, &f.format)
	fs := cmd.Flags()
	fs.BoolVarP(&f.follow, "follow", "f", false, "go on with those to come")
	fs.BoolVar(&f.denied, "denied", false, "only those denied")
	fs.StringVar(&f.pod, "pod", "", "only from or to this pod: NAMESPACE/NAME, or NAME in the namespace default")
	fs.StringVar(&f.address, "address", "", "only from or to this address")
	fs.IntVar(&f.count, "count", 0, "end after so many; without --follow show the last so many; 0: all")
	config.CallOnly(fs, "follow", "denied", "pod", "address", "count")
	return cmd
}

// query checks the flags.
func (f flowFlags) query() (localapi.FlowQuery, error) {
	q := localapi.FlowQuery{Follow: f.follow, Denied: f.denied}
	switch {
	case f.count < 0:
		return q, misuse("--count: %d is less than 0", f.count)
	case f.follow && f.format == formatYAML:
		return q, misuse("--follow writes table, wide or json, not yaml")
	}
	if f.pod != "" {
		if q.Endpoint = f.pod; !strings.Contains(f.pod, "/") {
			q.Endpoint = "default/" + f.pod
		}
	}
	if f.address != "" {
		a, err := netip.ParseAddr(f.address)
		if err != nil {
			return q, misuse("--address: %q is no address", f.address)
		}
		q.Address = a.Unmap()
	}
	return q, nil
}

// errEnough ends a stream of which there was enough.
var errEnough = errors.New("enough")

func (e *env) showFlows(ctx context.Context, f flowFlags) error {
	q, err := f.query()
	if err != nil {
		return err
	}
	if q.Follow {
		return e.followFlows(ctx, q, f)
	}
	ctx, cancel := context.WithTimeout(ctx, agentPatience)
	defer cancel()
	flows := []localapi.Flow{} // written as [] rather than null
	err = e.agent().Flows(ctx, q, func(flow localapi.Flow) error { flows = append(flows, flow); return nil })
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	if f.count > 0 {
		flows = flows[max(0, len(flows)-f.count):]
	}
	if f.machine() {
		return f.write(e.Out, flows)
	}
	t := &table{head: flowHead(f.format)}
	for _, flow := range flows {
		t.add(flowRow(flow, f.format, e.Now().Location())...)
	}
	if err := t.plain(e.Out); err != nil {
		return err
	}
	return warnOfLost(e.Err, flows...)
}

// followFlows writes flows as they come.
func (e *env) followFlows(ctx context.Context, q localapi.FlowQuery, f flowFlags) error {
	if !f.machine() {
		if _, err := fmt.Fprintln(e.Out, spaced(flowHead(f.format))); err != nil {
			return err
		}
	}
	n := 0
	err := e.agent().Flows(ctx, q, func(flow localapi.Flow) error {
		line := spaced(flowRow(flow, f.format, e.Now().Location()))
		if f.machine() {
			b, err := json.Marshal(flow)
			if err != nil {
				return fmt.Errorf("write as JSON: %w", err)
			}
			line = string(b)
		} else if err := warnOfLost(e.Err, flow); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(e.Out, line); err != nil {
			return err
		}
		if n++; n == f.count {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// warnOfLost says how many flows could not be told before these.
func warnOfLost(w io.Writer, flows ...localapi.Flow) error {
	var lost uint64
	for _, f := range flows {
		lost += f.Lost
	}
	if lost == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "warning: %d or more were lost: too many at once\n", lost)
	return err
}

func flowHead(f format) []string {
	head := []string{"TIME", "VERDICT", "DIRECTION", "SOURCE", "DESTINATION", "PROTOCOL", "TIER", "POLICY", "RULE"}
	if f.wide() {
		head = append(head, "IN", "OUT")
	}
	return head
}

func flowRow(f localapi.Flow, as format, zone *time.Location) []string {
	rule := ""
	switch {
	case f.Rule > 0:
		rule = strconv.Itoa(f.Rule)
	case f.Direction != "":
		rule = "default"
	}
	row := []string{
		f.Time.In(zone).Format("15:04:05.000"), f.Verdict, f.Direction,
		flowEnd(f.Src, f.SrcPort, f.SrcEndpoint), flowEnd(f.Dst, f.DstPort, f.DstEndpoint), protocolText(f), f.Tier, f.Policy, rule,
	}
	if as.wide() {
		row = append(row, f.InLink, f.OutLink)
	}
	return row
}

// flowEnd writes one end of a packet.
func flowEnd(a netip.Addr, port uint16, name string) string {
	text := a.String()
	if port != 0 {
		text = netip.AddrPortFrom(a, port).String()
	}
	if name != "" {
		return name + " (" + text + ")"
	}
	return text
}

// protocolText names a packet's protocol as policies do, with type and code of ICMP.
func protocolText(f localapi.Flow) string {
	name := strconv.Itoa(int(f.Protocol))
	for _, p := range []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP, v1.ProtocolICMP, v1.ProtocolICMPv6, v1.ProtocolSCTP, v1.ProtocolUDPLite} {
		if p.Number() == f.Protocol {
			name = string(p)
		}
	}
	if name == string(v1.ProtocolICMP) || name == string(v1.ProtocolICMPv6) {
		name += fmt.Sprintf(" %d/%d", f.ICMPType, f.ICMPCode)
	}
	return name
}

// flowWidths are the widths of columns of which the rows come one by one.
var flowWidths = []int{12, 7, 9, 36, 36, 8, 8, 28, 7, 15}

// spaced writes a row of which the others are not known.
func spaced(row []string) string {
	cells := slices.Clone(row)
	for i, c := range cells {
		if c == "" {
			cells[i] = "-"
		}
		if i < len(cells)-1 && i < len(flowWidths) {
			cells[i] = fmt.Sprintf("%-*s", flowWidths[i], cells[i])
		}
	}
	return strings.Join(cells, "   ")
}
