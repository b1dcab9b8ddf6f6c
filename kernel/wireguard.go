package kernel

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

// WireGuardKey is a public key (Curve25519).
type WireGuardKey [32]byte

// String returns the key as wg(8) writes it.
func (k WireGuardKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// ParseWireGuardKey returns the key that String wrote.
func ParseWireGuardKey(text string) (WireGuardKey, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) != len(WireGuardKey{}) {
		return WireGuardKey{}, fmt.Errorf("%q is no WireGuard key: want 32 bytes in base64", text)
	}
	return WireGuardKey(b), nil
}

// WireGuardPeer is another node as the WireGuard device knows it, without a
// preshared key.
type WireGuardPeer struct {
	// Endpoint is where the node receives (UDP). The kernel changes it by itself when
	// packets that are truly the peer's come from elsewhere.
	Endpoint netip.AddrPort
	// Allowed are the addresses behind the peer: what is sent to them is for it, and
	// only from them it may send. A prefix belongs to one peer: whoever gets it takes
	// it from another.
	Allowed Prefixes
	// Probe has the kernel send something every second though there is nothing to
	// send (persistent keepalive): so it shakes hands with a peer before the first
	// packet for it comes. It begins at once.
	Probe bool
}

func (p WireGuardPeer) String() string {
	s := fmt.Sprintf("%s allowed %s", p.Endpoint, p.Allowed)
	if p.Probe {
		s += ", probing"
	}
	return s
}

// Check says why there can't be such a peer with this key.
func (p WireGuardPeer) Check(key WireGuardKey) error {
	invalid := func(why string) error { return fmt.Errorf("%s: %w", why, syscall.EINVAL) }
	switch addr := p.Endpoint.Addr(); {
	case key == WireGuardKey{}:
		return invalid("no key")
	case !addr.IsValid() || addr.IsUnspecified() || p.Endpoint.Port() == 0:
		return invalid("no endpoint")
	case addr.Is4In6() || addr.Zone() != "":
		return invalid("endpoint is an IPv4 address in IPv6, or has a zone")
	}
	for _, prefix := range p.Allowed.List() {
		if prefix.Addr().Is4In6() {
			return invalid("allowed " + prefix.String() + " is IPv4 in IPv6")
		}
	}
	return nil
}

// PeerTraffic is what went to and came from a WireGuard peer.
type PeerTraffic struct {
	Key           WireGuardKey
	Endpoint      netip.AddrPort
	LastHandshake time.Time // zero: never
	Received      int64     // bytes
	Sent          int64     // bytes
}

// Encryption is the WireGuard device beyond what every tunnel device has. Its
// private key never leaves the kernel: the driver makes one for a device that has
// none.
type Encryption interface {
	// Peers is the table of the device's peers. Without a device it is empty, and
	// setting fails with ENODEV. A peer with the device's own key is ignored.
	Peers() Table[WireGuardKey, WireGuardPeer]
	// Key returns the device's public key, another one when the device was made anew.
	// ErrUnsupported or ENODEV: there is no device.
	Key(ctx context.Context) (WireGuardKey, error)
	// Traffic returns what went to and came from each peer since it was added, in the
	// order of keys; without a device nothing.
	Traffic(ctx context.Context) ([]PeerTraffic, error)
}

// Prefixes is a set of prefixes in canonical form: sorted, each once, comparable
// with ==. The zero value is the empty set.
type Prefixes struct{ text string }

// PrefixesOf returns the canonical set of the valid ones.
func PrefixesOf(list ...netip.Prefix) Prefixes {
	sorted := slices.DeleteFunc(slices.Clone(list), func(p netip.Prefix) bool { return !p.IsValid() })
	for i := range sorted {
		sorted[i] = sorted[i].Masked()
	}
	slices.SortFunc(sorted, netip.Prefix.Compare)
	texts := make([]string, 0, len(sorted))
	for _, p := range slices.Compact(sorted) {
		texts = append(texts, p.String())
	}
	return Prefixes{strings.Join(texts, " ")}
}

// List returns the prefixes in order.
func (p Prefixes) List() []netip.Prefix {
	var list []netip.Prefix
	for _, text := range strings.Fields(p.text) {
		list = append(list, netip.MustParsePrefix(text)) // written by PrefixesOf
	}
	return list
}

func (p Prefixes) String() string { return strings.ReplaceAll(p.text, " ", ", ") }
