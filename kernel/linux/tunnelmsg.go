//go:build linux

package linux

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// tunnelState is a tunnel device as RTM_GETLINK tells it: without its checksum
// offload, and without WireGuard's port.
type tunnelState struct {
	linkState
	tunnel kernel.Tunnel
	// odd names the parameters that Tunnel has no field for and that are not as
	// newTunnel makes them. The kernel can't change all of them.
	odd []string
}

// parameters are those of a kind of link (IFLA_INFO_DATA) that have no field in
// kernel.Tunnel. Each is zero, or not told at all, in a device that Cairn made; the
// kernel's own defaults of learning and of outer checksums are not.
//
// What Cairn leaves to the kernel (how long a learned entry lives, how many there
// may be) is not among them, nor is what no kernel had when this was written: it
// may have another default than zero, so that no new device would be right.
var parameters = map[kernel.TunnelKind]map[uint16]string{
	kernel.VXLAN: {
		unix.IFLA_VXLAN_GROUP:             "group",
		unix.IFLA_VXLAN_GROUP6:            "group",
		unix.IFLA_VXLAN_LINK:              "dev",
		unix.IFLA_VXLAN_TTL:               "ttl",
		unix.IFLA_VXLAN_TTL_INHERIT:       "ttl inherit",
		unix.IFLA_VXLAN_TOS:               "tos",
		unix.IFLA_VXLAN_DF:                "df",
		unix.IFLA_VXLAN_LEARNING:          "learning",
		unix.IFLA_VXLAN_PORT_RANGE:        "srcport",
		unix.IFLA_VXLAN_PROXY:             "proxy",
		unix.IFLA_VXLAN_RSC:               "rsc",
		unix.IFLA_VXLAN_L2MISS:            "l2miss",
		unix.IFLA_VXLAN_L3MISS:            "l3miss",
		unix.IFLA_VXLAN_UDP_CSUM:          "udpcsum",
		unix.IFLA_VXLAN_UDP_ZERO_CSUM6_TX: "udp6zerocsumtx",
		unix.IFLA_VXLAN_UDP_ZERO_CSUM6_RX: "udp6zerocsumrx",
		unix.IFLA_VXLAN_REMCSUM_TX:        "remcsumtx",
		unix.IFLA_VXLAN_REMCSUM_RX:        "remcsumrx",
		unix.IFLA_VXLAN_GBP:               "gbp",
		unix.IFLA_VXLAN_GPE:               "gpe",
		unix.IFLA_VXLAN_COLLECT_METADATA:  "external",
		unix.IFLA_VXLAN_VNIFILTER:         "vnifilter",
	},
	// TTL and path-MTU discovery of tunl0, which the kernel makes itself, stay as its
	// administrator has them. Its protocol is IPIP or any.
	kernel.IPIP: {
		nl.IFLA_IPTUN_LINK:             "dev",
		nl.IFLA_IPTUN_LOCAL:            "local",
		nl.IFLA_IPTUN_REMOTE:           "remote",
		nl.IFLA_IPTUN_ENCAP_TYPE:       "encap",
		nl.IFLA_IPTUN_COLLECT_METADATA: "external",
	},
}

// parseTunnel returns the tunnel device that a message tells. Of a link of another
// kind it returns the kind.
func parseTunnel(data []byte) (tunnelState, error) {
	l, _, err := parseLink(data)
	if err != nil {
		return tunnelState{}, err
	}
	s := tunnelState{linkState: l, tunnel: kernel.Tunnel{Kind: kernel.TunnelKind(l.Kind), MTU: l.MTU}}
	attrs, err := netlink.NewAttributeDecoder(data[unix.SizeofIfInfomsg:])
	if err != nil {
		return tunnelState{}, fmt.Errorf("decode link: %w", err)
	}
	for attrs.Next() {
		switch attrs.Type() {
		case unix.IFLA_ADDRESS:
			if mac := attrs.Bytes(); s.tunnel.Kind == kernel.VXLAN {
				copy(s.tunnel.MAC[:], mac)
			}
		case unix.IFLA_LINKINFO:
			attrs.Nested(func(a *netlink.AttributeDecoder) error {
				for a.Next() {
					if a.Type() == unix.IFLA_INFO_DATA {
						a.Nested(s.parseParameters)
					}
				}
				return nil
			})
		}
	}
	if err := attrs.Err(); err != nil {
		return tunnelState{}, fmt.Errorf("decode link: %w", err)
	}
	return s, nil
}

func (s *tunnelState) parseParameters(a *netlink.AttributeDecoder) error {
	for a.Next() {
		value := a.Bytes()
		if s.tunnel.Kind == kernel.VXLAN && len(value) > 0 {
			switch a.Type() {
			case unix.IFLA_VXLAN_ID:
				s.tunnel.VNI = a.Uint32()
			case unix.IFLA_VXLAN_LOCAL, unix.IFLA_VXLAN_LOCAL6:
				s.tunnel.Local, _ = netip.AddrFromSlice(value)
			case unix.IFLA_VXLAN_PORT:
				s.tunnel.Port = binary.BigEndian.Uint16(value)
			}
		}
		name, known := parameters[s.tunnel.Kind][a.Type()]
		flag := len(value) == 0 // it is there, which says enough
		if known && (flag || slices.ContainsFunc(value, func(b byte) bool { return b != 0 })) {
			s.odd = append(s.odd, name)
		}
	}
	return nil
}

// fits says whether the device can be made t without making it anew.
func (s tunnelState) fits(t kernel.Tunnel) bool {
	return len(s.odd) == 0 && s.tunnel.Kind == t.Kind && s.tunnel.VNI == t.VNI && s.tunnel.Local == t.Local &&
		(t.Kind != kernel.VXLAN || s.tunnel.Port == t.Port)
}

// newTunnel builds the request to make a device, which is down and not marked yet.
//
// The checksums outside are left out over IPv4, as RFC 7348 wants it, and network
// cards do best; IPv6 has them (RFC 8200, section 8.1).
func newTunnel(name string, t kernel.Tunnel) (netlink.Message, error) {
	attrs := netlink.NewAttributeEncoder()
	attrs.String(unix.IFLA_IFNAME, name)
	attrs.Uint32(unix.IFLA_MTU, uint32(t.MTU))
	if t.Kind == kernel.VXLAN {
		attrs.Bytes(unix.IFLA_ADDRESS, t.MAC[:])
	}
	attrs.Nested(unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) error {
		info.String(unix.IFLA_INFO_KIND, string(t.Kind))
		info.Nested(unix.IFLA_INFO_DATA, func(data *netlink.AttributeEncoder) error {
			switch t.Kind {
			case kernel.VXLAN:
				vxlanParameters(data, t)
			case kernel.IPIP:
				data.Uint8(nl.IFLA_IPTUN_PMTUDISC, 0) // as in the one that the kernel makes
			}
			return nil
		})
		return nil
	})
	return request(unix.RTM_NEWLINK, netlink.Request|netlink.Acknowledge|netlink.Create|netlink.Excl, make([]byte, unix.SizeofIfInfomsg), attrs)
}

func vxlanParameters(data *netlink.AttributeEncoder, t kernel.Tunnel) {
	local := uint16(unix.IFLA_VXLAN_LOCAL)
	if t.Local.Is6() {
		local = unix.IFLA_VXLAN_LOCAL6
	}
	data.Uint32(unix.IFLA_VXLAN_ID, t.VNI)
	data.Bytes(unix.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, t.Port))
	data.Bytes(local, t.Local.AsSlice())
	data.Uint8(unix.IFLA_VXLAN_LEARNING, 0)
	data.Uint8(unix.IFLA_VXLAN_UDP_CSUM, 0)
	data.Uint8(unix.IFLA_VXLAN_UDP_ZERO_CSUM6_TX, 0)
	data.Uint8(unix.IFLA_VXLAN_UDP_ZERO_CSUM6_RX, 0)
}

// linkChange is what RTM_NEWLINK may change of a link.
type linkChange struct {
	alias *string
	mtu   int         // 0: stays
	mac   *kernel.MAC // nil: stays
	up    *bool
}

// changeLink builds the request to change the link with this index.
func changeLink(index uint32, c linkChange) (netlink.Message, error) {
	header := linkHeader(index)
	if c.up != nil {
		var flags uint32
		if *c.up {
			flags = unix.IFF_UP
		}
		binary.NativeEndian.PutUint32(header[8:], flags)
		binary.NativeEndian.PutUint32(header[12:], unix.IFF_UP) // the flags that change
	}
	attrs := netlink.NewAttributeEncoder()
	if c.alias != nil {
		attrs.Bytes(unix.IFLA_IFALIAS, []byte(*c.alias))
	}
	if c.mtu != 0 {
		attrs.Uint32(unix.IFLA_MTU, uint32(c.mtu))
	}
	if c.mac != nil {
		attrs.Bytes(unix.IFLA_ADDRESS, c.mac[:])
	}
	return request(unix.RTM_NEWLINK, netlink.Request|netlink.Acknowledge, header, attrs)
}

// noLinkLocal builds the request to have the kernel make no link-local address of
// IPv6 when the link comes up.
func noLinkLocal(index uint32) (netlink.Message, error) {
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	attrs := netlink.NewAttributeEncoder()
	attrs.Nested(unix.IFLA_AF_SPEC, func(families *netlink.AttributeEncoder) error {
		families.Nested(unix.AF_INET6, func(inet6 *netlink.AttributeEncoder) error {
			inet6.Uint8(unix.IFLA_INET6_ADDR_GEN_MODE, none)
			return nil
		})
		return nil
	})
	return request(unix.RTM_NEWLINK, netlink.Request|netlink.Acknowledge, linkHeader(index), attrs)
}

func delLink(index uint32) (netlink.Message, error) {
	return request(unix.RTM_DELLINK, netlink.Request|netlink.Acknowledge, linkHeader(index), netlink.NewAttributeEncoder())
}

// linkHeader is struct ifinfomsg.
func linkHeader(index uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], index)
	return b
}

// execute sends one request and returns the kernel's refusal.
func execute(conn *netlink.Conn) func(netlink.Message, error) error {
	return func(m netlink.Message, err error) error {
		if err == nil {
			_, err = conn.Execute(m)
		}
		return refusal(err)
	}
}
