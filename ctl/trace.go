package ctl

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/config"
	"cairn.network/cairn/datastore"
)

// traceFlags is what a call of trace asks for.
type traceFlags struct {
	format
	port, sourcePort int32
	protocol         string
	timeout          time.Duration
	reply            bool
	ipv4, ipv6       bool
}

func (e *env) trace() *cobra.Command {
	var f traceFlags
	cmd := &cobra.Command{
		Use:   "trace SOURCE DESTINATION",
		Short: "Send a packet, and show its way hop by hop",
		Long: `Have the agent of SOURCE's node send one packet from there, and show what rules of
nftables, of Cairn and of others, and routing do with it on every node.

SOURCE is a pod (NAMESPACE/NAME, or NAME in the namespace default) or a node
(node/NAME); DESTINATION may also be an address. By TCP a connection is begun, by UDP a
datagram of a few bytes is sent, by ICMP an echo request. The packet is a real one:
what listens at the destination sees it.

The agents are told through the datastore, so it works from anywhere. The agent of the
source needs CAP_SYS_ADMIN to send from inside a pod. Steps on nodes whose agent does
not run are not seen.`,
		Example: `  cairn ctl trace default/web default/db --port 5432
  cairn ctl trace web 10.96.0.10 --protocol udp --port 53 --reply
  cairn ctl trace node/n1 default/db --protocol icmp`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return misuse("%s wants a source and a destination", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return e.runTrace(cmd.Context(), f, args[0], args[1]) },
	}
	addFormat(cmd, &f.format)
	fs := cmd.Flags()
	fs.Int32VarP(&f.port, "port", "p", 0, "port of the destination, of TCP and UDP")
	fs.Int32Var(&f.sourcePort, "source-port", 0, "port of the source; 0: any")
	fs.StringVar(&f.protocol, "protocol", "tcp", "tcp, udp, icmp or icmpv6")
	fs.DurationVar(&f.timeout, "timeout", 2*time.Second, "how long to wait for an answer")
	fs.BoolVar(&f.reply, "reply", false, "show the way of what comes back, too")
	fs.BoolVarP(&f.ipv4, "ipv4", "4", false, "by IPv4")
	fs.BoolVarP(&f.ipv6, "ipv6", "6", false, "by IPv6")
	config.CallOnly(fs, "port", "source-port", "protocol", "timeout", "reply", "ipv4", "ipv6")
	return cmd
}

// object returns the trace that was asked for.
func (f traceFlags) object(source, destination string) (*v1.PacketTrace, error) {
	t := &v1.PacketTrace{Spec: v1.PacketTraceSpec{
		Source: traceEnd(source), Destination: traceEnd(destination), Protocol: v1.Protocol(f.protocol), Port: f.port, SourcePort: f.sourcePort,
		Timeout: &metav1.Duration{Duration: f.timeout}, Replies: f.reply,
	}}
	for _, p := range []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP, v1.ProtocolICMP, v1.ProtocolICMPv6} {
		if strings.EqualFold(string(p), f.protocol) {
			t.Spec.Protocol = p
		}
	}
	switch a, err := netip.ParseAddr(t.Spec.Destination.Address); {
	case f.ipv4 && f.ipv6:
		return nil, misuse("-4 and -6 exclude each other")
	case f.ipv4:
		t.Spec.IPVersion = 4
	case f.ipv6:
		t.Spec.IPVersion = 6
	case err == nil && a.Is6() && t.Spec.Protocol == v1.ProtocolICMP:
		t.Spec.Protocol = v1.ProtocolICMPv6
	}
	if t.Spec.IPVersion == 6 && t.Spec.Protocol == v1.ProtocolICMP {
		t.Spec.Protocol = v1.ProtocolICMPv6
	}
	if p := t.Spec.Protocol; f.port == 0 && p.HasPorts() {
		return nil, misuse("--port: must be given for %s", p)
	}
	id := make([]byte, 5)
	_, _ = rand.Read(id) // it never fails
	t.Name = "trace-" + hex.EncodeToString(id)
	t.Default()
	if err := v1.Check(t); err != nil {
		return nil, misuse("%v", err)
	}
	return t, nil
}

// traceEnd returns the end that a text names.
func traceEnd(text string) v1.TraceEnd {
	if name, ok := strings.CutPrefix(text, "node/"); ok {
		return v1.TraceEnd{Node: name}
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return v1.TraceEnd{Address: a.Unmap().String()}
	}
	if !strings.Contains(text, "/") {
		text = "default/" + text
	}
	return v1.TraceEnd{Pod: text}
}

func (e *env) runTrace(ctx context.Context, f traceFlags, source, destination string) error {
	t, err := f.object(source, destination)
	if err != nil {
		return err
	}
	store, err := e.open()
	if err != nil {
		return err
	}
	for _, end := range []v1.TraceEnd{t.Spec.Source, t.Spec.Destination} {
		if err := e.checkEnd(ctx, store, end); err != nil {
			return err
		}
	}
	if _, err := store.Create(ctx, t); err != nil {
		return fmt.Errorf("ask the agents: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), agentPatience)
		defer cancel()
		if err := store.Delete(ctx, datastore.KeyOf(t), ""); err != nil && !isNotFound(err) {
			fmt.Fprintf(e.Err, "warning: %s is left: %v\n", datastore.KeyOf(t), err)
		}
	}()
	done, err := awaitTrace(ctx, store, t)
	if err != nil {
		return err
	}
	if f.machine() {
		return f.write(e.Out, done)
	}
	return writeTrace(e.Out, done)
}

// checkEnd returns an error if an end is not there.
func (e *env) checkEnd(ctx context.Context, store datastore.Store, end v1.TraceEnd) error {
	switch {
	case end.Node != "":
		_, err := store.Get(ctx, datastore.Key{Kind: "Node", Name: end.Node})
		return err
	case end.Pod != "":
		all, err := listAs[*v1.WorkloadEndpoint](ctx, e, store, "WorkloadEndpoint")
		if err != nil {
			return err
		}
		there := slices.ContainsFunc(all, func(w *v1.WorkloadEndpoint) bool { return w.Namespace+"/"+w.Spec.Pod == end.Pod })
		if !there {
			return fmt.Errorf("pod %s: %w: no WorkloadEndpoint is of it", end.Pod, datastore.ErrNotFound)
		}
	}
	return nil
}

// Times to wait for agents.
const (
	traceBegin = 5 * time.Second // until the source's takes it up
	traceLate  = time.Second     // for what was seen just before the answer
)

// awaitTrace waits until agents have told everything, or should have.
func awaitTrace(ctx context.Context, store datastore.Store, t *v1.PacketTrace) (*v1.PacketTrace, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	latest := make(chan *v1.PacketTrace, 1)
	ended := make(chan error, 1)
	name := t.Name
	go func() {
		ended <- store.Watch(ctx, "PacketTrace", func(ev datastore.Event) {
			for _, o := range append(slices.Clone(ev.All), ev.Set) {
				if now, ok := o.(*v1.PacketTrace); ok && now.Name == name {
					select { // of two that wait the newer counts
					case <-latest:
					default:
					}
					latest <- now
				}
			}
		})
	}()
	timeout := time.NewTimer(traceBegin)
	defer timeout.Stop()
	for begun, answered := false, false; ; {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case err := <-ended:
			return nil, fmt.Errorf("watch %s: %w", name, err)
		case <-timeout.C:
			if t.Status.Packet == nil {
				return nil, fmt.Errorf("no agent takes up the trace within %s: the one of %s's node does not run, or does not reach the datastore", traceBegin, t.Spec.Source)
			}
			return t, nil
		case t = <-latest:
		}
		s := t.Status
		for _, p := range s.Problems {
			if s.Packet == nil || p.Node == s.Nodes[0] {
				return nil, fmt.Errorf("the agent of node %s can't trace: %s", p.Node, p.Reason)
			}
		}
		switch {
		case complete(t):
			return t, nil
		case s.Answer != "" && !answered:
			answered = true
			timeout.Reset(traceLate)
		case s.Packet != nil && !begun:
			begun = true
			timeout.Reset(traceBegin + t.Spec.Wait() + traceLate)
		}
	}
}

// complete says whether there is nothing more to wait for.
func complete(t *v1.PacketTrace) bool {
	s := t.Status
	if s.Packet == nil || !arrived(s, false) {
		return false
	}
	if v := lastVerdict(s, false).Verdict; v != v1.TraceDelivered && v != v1.TraceSent {
		return true // no answer will come
	}
	return s.Answer != "" && (!t.Spec.Replies || s.Answer != v1.TraceAnswered || arrived(s, true))
}

// arrived says whether all of a packet's way is known: what became of it on the node
// where it began, and, unless that was the end, on the one where it ends.
func arrived(s v1.PacketTraceStatus, reply bool) bool {
	on := map[string]string{}
	for _, o := range inOrder(s, reply) {
		if o.Step == v1.TraceStepVerdict {
			on[o.Node] = o.Verdict
		}
	}
	ends := slices.Clone(s.Nodes)
	if reply {
		slices.Reverse(ends)
	}
	if on[ends[0]] == v1.TraceSent && len(ends) > 1 {
		return on[ends[1]] != ""
	}
	return on[ends[0]] != ""
}

// lastVerdict returns what became of a packet at the last node that saw it; nil: none
// did. It is the destination's if that one saw it.
func lastVerdict(s v1.PacketTraceStatus, reply bool) *v1.TraceObservation {
	var last *v1.TraceObservation
	for _, o := range inOrder(s, reply) {
		if o.Step == v1.TraceStepVerdict {
			last = &o
		}
	}
	return last
}

// inOrder returns what was seen of a packet, node by node as it went.
func inOrder(s v1.PacketTraceStatus, reply bool) []v1.TraceObservation {
	rank := func(o v1.TraceObservation) int {
		at := 1 // in between
		switch i := slices.Index(s.Nodes, o.Node); {
		case i == 0:
			at = 0
		case i > 0:
			at = 2
		}
		if reply {
			at = 2 - at
		}
		return at
	}
	var all []v1.TraceObservation
	for _, o := range s.Observations {
		if o.Reply == reply {
			all = append(all, o)
		}
	}
	slices.SortStableFunc(all, func(a, b v1.TraceObservation) int { return rank(a) - rank(b) })
	return all
}

// traceEndText writes an end with its address and port.
func traceEndText(end v1.TraceEnd, address string, port int32) string {
	if port != 0 {
		if a, err := netip.ParseAddr(address); err == nil {
			address = netip.AddrPortFrom(a, uint16(port)).String()
		} else {
			address += ":" + strconv.Itoa(int(port))
		}
	}
	if end.Address != "" {
		return address
	}
	return end.String() + " (" + address + ")"
}
