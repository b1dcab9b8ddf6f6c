package ctl

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	v1 "cairn.network/cairn/api/v1"
)

// writeTunnels writes the tunnel devices, if there are to be any.
func writeTunnels(w io.Writer, tunnels []v1.TunnelStatus) error {
	if len(tunnels) == 0 {
		return nil
	}
	fmt.Fprintln(w, "\nTunnels")
	t := &table{head: []string{"DEVICE", "ADDRESSES", "MTU", "REMOTE NODES", "STATE"}}
	for _, d := range tunnels {
		state := d.State
		if d.Message != "" {
			state += ": " + d.Message
		}
		t.add(d.Device, cmp.Or(strings.Join(d.Addresses, ", "), "-"), strconv.Itoa(d.MTU), strconv.Itoa(d.RemoteNodes), state)
	}
	return t.bordered(w)
}

// writeWireGuard writes the WireGuard device's peers, if there is a device.
func writeWireGuard(w io.Writer, s *v1.WireGuardStatus, f format, now time.Time) error {
	if s == nil {
		return nil
	}
	fmt.Fprintf(w, "\nWireGuard peers (this node: UDP port %d, key %s)\n", s.ListeningPort, s.PublicKey)
	if len(s.Peers) == 0 {
		fmt.Fprintln(w, "No other node publishes a key.")
		return nil
	}
	t := &table{head: []string{"NODE", "ENDPOINT", "LAST HANDSHAKE", "RECEIVED", "SENT"}}
	if f.wide() {
		t.head = append(t.head, "KEY")
	}
	for _, p := range s.Peers {
		handshake := "never"
		if !p.LastHandshake.IsZero() {
			handshake = duration(now.Sub(p.LastHandshake.Time)) + " ago"
		}
		row := []string{cmp.Or(p.Node, "-"), p.Endpoint, handshake, size(p.ReceivedBytes), size(p.SentBytes)}
		if f.wide() {
			row = append(row, p.PublicKey)
		}
		t.add(row...)
	}
	return t.bordered(w)
}

// size writes a number of bytes with three digits or more, such as 1.50 MiB.
func size(bytes int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	n, unit := float64(bytes), 0
	for n >= 1024 && unit < len(units)-1 {
		n, unit = n/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%.2f %s", n, units[unit])
}
