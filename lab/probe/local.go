package probe

import (
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// localConn receives packets with the address that they were sent to, and answers from
// there: a host may have several addresses, and the one of the way back may be another.
type localConn interface {
	receive(b []byte) (n int, from net.Addr, local net.IP, err error)
	send(b []byte, to net.Addr, local net.IP) error
}

// withLocal returns a socket of one family as a localConn. Of raw sockets, packets are
// without the IP header.
func withLocal(c net.PacketConn) (localConn, error) {
	bound, raw := c.LocalAddr().(*net.IPAddr)
	is6 := raw && bound.IP.To4() == nil
	if udp, ok := c.LocalAddr().(*net.UDPAddr); ok {
		is6 = udp.IP.To4() == nil
	}
	if is6 {
		p := ipv6.NewPacketConn(c)
		if raw {
			// All that is not asked of us stays in the kernel: neighbours' questions, routers' word.
			var f ipv6.ICMPFilter
			f.SetAll(true)
			for _, r := range icmp6Replies {
				f.Accept(ipv6.ICMPType(r[0]))
			}
			_ = p.SetICMPFilter(&f) // a raw socket of another protocol has none
		}
		return local6{p}, p.SetControlMessage(ipv6.FlagDst, true)
	}
	p := ipv4.NewPacketConn(c)
	return local4{p}, p.SetControlMessage(ipv4.FlagDst, true)
}

type local4 struct{ *ipv4.PacketConn }

func (c local4) receive(b []byte) (int, net.Addr, net.IP, error) {
	n, cm, from, err := c.ReadFrom(b)
	if cm == nil {
		return n, from, nil, err
	}
	return n, from, cm.Dst, err
}

func (c local4) send(b []byte, to net.Addr, local net.IP) error {
	_, err := c.WriteTo(b, &ipv4.ControlMessage{Src: local}, to)
	return err
}

type local6 struct{ *ipv6.PacketConn }

func (c local6) receive(b []byte) (int, net.Addr, net.IP, error) {
	n, cm, from, err := c.ReadFrom(b)
	if cm == nil {
		return n, from, nil, err
	}
	return n, from, cm.Dst, err
}

func (c local6) send(b []byte, to net.Addr, local net.IP) error {
	_, err := c.WriteTo(b, &ipv6.ControlMessage{Src: local}, to)
	return err
}
