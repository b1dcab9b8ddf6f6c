//go:build linux

package linux

import (
	"fmt"
	"testing"
)

// TestServicesLeadNobodyIn sends what is encapsulated to ports that a Service has on
// the node, which translates the destination into a node's address: its own, or
// another's, to which it sends from its own.
func TestServicesLeadNobodyIn(t *testing.T) {
	const own, other, fine = 30000, 30001, 30002
	for _, nat := range []bool{false, true} {
		w := newProtectedWorld(t, tunnelPools(nat)...)
		w.nft(t, fmt.Sprintf(`table inet services {
			chain prerouting { type nat hook prerouting priority dstnat
				udp dport %[1]d dnat ip to 192.0.2.1:4789
				udp dport %[1]d dnat ip6 to [2001:db8::1]:4789
				udp dport %[2]d dnat ip to 192.0.2.3:4789
				udp dport %[2]d dnat ip6 to [2001:db8::3]:4789
				udp dport %[3]d redirect to :4790
				ip saddr 192.0.2.100 udp dport %[4]d dnat ip to 192.0.2.3
				ip6 saddr 2001:db8::100 udp dport %[4]d dnat ip6 to 2001:db8::3
			}
			chain postrouting { type nat hook postrouting priority srcnat + 1
				oifname "net0" ct status dnat masquerade
			}
		}`, own, other, fine, barrierPort))
		outside, node := newListeners(t, w.outside), newListeners(t, w.netns)
		for _, tt := range []struct {
			name      string
			listeners *listeners
			kind
			src, dst, third string
			port            uint16
			arrives         bool
		}{
			// A pod with natOutgoing comes with its node's address.
			{"a node to this one", node, vxlan4, "192.0.2.2", "192.0.2.1", "192.0.2.1", own, !nat},
			{"a node to this one", node, vxlan6, "2001:db8::2", "2001:db8::1", "2001:db8::1", own, !nat},
			{"a stranger to this node", node, vxlan4, "192.0.2.101", "192.0.2.1", "192.0.2.1", own, false},
			{"a stranger to this node", node, vxlan6, "2001:db8::101", "2001:db8::1", "2001:db8::1", own, false},
			{"a stranger to another node", outside, vxlan4, "192.0.2.100", "192.0.2.1", "192.0.2.3", other, false},
			{"a stranger to another node", outside, vxlan6, "2001:db8::100", "2001:db8::1", "2001:db8::3", other, false},
			{"another port", node, otherPort4, "192.0.2.2", "192.0.2.1", "192.0.2.1", fine, true},
			{"another port", node, otherPort6, "2001:db8::2", "2001:db8::1", "2001:db8::1", fine, true},
		} {
			t.Run(fmt.Sprintf("natOutgoing %t, %s, %s", nat, tt.name, tt.src), func(t *testing.T) {
				toService := tt.kind
				toService.make = func(src, dst, text string) datagram { return udp(src, dst, tt.port, vxlan(4096, text)) }
				arrived := tt.listeners.try(t, journey{toService, tt.src, tt.dst, tt.arrives}, w.outside, func(_ kind, text string) {
					from := map[bool]string{false: "192.0.2.2", true: "2001:db8::2"}[tt.network == "udp6"]
					emit(t, w.outside, tt.listeners.marker(tt.kind, from, tt.third, text))
				})
				if arrived != tt.arrives {
					t.Errorf("arrived: %t, want %t", arrived, tt.arrives)
				}
			})
		}
	}
}
