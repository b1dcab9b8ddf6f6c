package probe_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/lab/fabric"
	"cairn.network/cairn/lab/probe"
)

// answered tries until there is an answer: a server may not listen yet.
func answered(t *testing.T, e probe.Exchange) probe.Answer {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		a, err := e.Try(ctx)
		cancel()
		if err == nil {
			return a
		}
		if t.Context().Err() != nil {
			t.Fatalf("%s: %v", e, err)
		}
	}
}

func TestExchange(t *testing.T) {
	dir, a, b, _ := hosts(t)
	for i, dst := range b {
		other := []uint8{13, 15, 17}
		if dst.Is6() {
			other = []uint8{139}
		}
		tests := []struct {
			name string
			e    probe.Exchange
			saw  bool
		}{
			{"tcp", probe.Exchange{Protocol: probe.TCP}, true},
			{"udp", probe.Exchange{Protocol: probe.UDP}, true},
			{"sctp", probe.Exchange{Protocol: probe.SCTP}, true},
			{"tcp, own port", probe.Exchange{Protocol: probe.TCP, SourcePort: 1000}, true},
			{"tcp, own port again", probe.Exchange{Protocol: probe.TCP, SourcePort: 1000}, true},
			{"udp, own port", probe.Exchange{Protocol: probe.UDP, SourcePort: 1000}, true},
			{"sctp, own port", probe.Exchange{Protocol: probe.SCTP, SourcePort: 65535}, true},
			{"echo", probe.Exchange{Protocol: probe.ICMP, Type: probe.ICMPTypes(dst)[0]}, false},
			{"echo with a code", probe.Exchange{Protocol: probe.ICMP, Type: probe.ICMPTypes(dst)[0], Code: 5}, false},
			{"another type", probe.Exchange{Protocol: probe.ICMP, Type: other[len(other)-1]}, true},
			{"another type with a code", probe.Exchange{Protocol: probe.ICMP, Type: other[len(other)-1], Code: 255}, true},
			{"first other type", probe.Exchange{Protocol: probe.ICMP, Type: other[0]}, dst.Is6()},
		}
		for _, tt := range tests {
			t.Run(dst.String()+" "+tt.name, func(t *testing.T) {
				tt.e.Netns, tt.e.Addr = fabric.Path(dir, "a"), netip.AddrPortFrom(dst, probe.Port)
				got, want := answered(t, tt.e), probe.Answer{From: dst}
				if tt.saw {
					want.Saw = a[i]
				}
				if got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			})
		}
	}
}

func TestExchangeFails(t *testing.T) {
	dir, _, b, _ := hosts(t)
	nobody := map[bool]netip.Addr{false: netip.MustParseAddr("10.1.0.99"), true: netip.MustParseAddr("fd00:1::99")}
	far := map[bool]netip.Addr{false: netip.MustParseAddr("192.0.2.1"), true: netip.MustParseAddr("2001:db8::1")}
	for _, dst := range b {
		answered(t, probe.Exchange{Netns: fabric.Path(dir, "a"), Protocol: probe.SCTP, Addr: netip.AddrPortFrom(dst, probe.Port)})
		for _, tt := range []struct {
			name  string
			from  string
			addr  netip.Addr
			proto probe.Protocol
			want  error // nil: any
		}{
			{"another port", "a", dst, probe.TCP, probe.ErrRefused},
			{"another port", "a", dst, probe.UDP, probe.ErrRefused},
			{"another port", "a", dst, probe.SCTP, probe.ErrRefused},
			{"nobody", "a", nobody[dst.Is6()], probe.TCP, probe.ErrNoAnswer},
			{"nobody", "a", nobody[dst.Is6()], probe.UDP, probe.ErrNoAnswer},
			{"nobody", "a", nobody[dst.Is6()], probe.SCTP, probe.ErrNoAnswer},
			{"nobody", "a", nobody[dst.Is6()], probe.ICMP, probe.ErrNoAnswer},
			{"no namespace", "none", dst, probe.TCP, nil},
			{"no namespace", "none", dst, probe.ICMP, nil},
			{"unknown protocol", "a", dst, "igmp", nil},
			{"no route", "fabric", far[dst.Is6()], probe.UDP, nil},
		} {
			t.Run(dst.String()+" "+tt.name+" "+string(tt.proto), func(t *testing.T) {
				patience := 10 * time.Second
				if tt.want == probe.ErrNoAnswer {
					patience = 300 * time.Millisecond
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				e := probe.Exchange{Netns: fabric.Path(dir, tt.from), Protocol: tt.proto, Addr: netip.AddrPortFrom(tt.addr, 1)}
				e.Type = probe.ICMPTypes(tt.addr)[0]
				_, err := e.Try(ctx)
				sent := errors.Is(err, probe.ErrRefused) || errors.Is(err, probe.ErrNoAnswer)
				if err == nil || tt.want != nil && !errors.Is(err, tt.want) || tt.want == nil && sent {
					t.Errorf("got %v, want %v", err, tt.want)
				}
			})
		}
	}
}

func TestParseExchange(t *testing.T) {
	for _, tt := range []struct {
		proto, where string
		want         string // of String; "": refused
	}{
		{"tcp", "10.0.0.1:1", "tcp 10.0.0.1:1"},
		{"udp", "[fd00::1]:65535", "udp [fd00::1]:65535"},
		{"sctp", "[::ffff:10.0.0.1]:80", "sctp 10.0.0.1:80"},
		{"icmp", "10.0.0.1", "icmp 10.0.0.1"},
		{"icmp", "fd00::1", "icmp fd00::1"},
		{"tcp", "10.0.0.1", ""},
		{"tcp", "10.0.0.1:0", ""},
		{"tcp", "10.0.0.1:65536", ""},
		{"udp", "fd00::1:80", ""},
		{"udp", "host:80", ""},
		{"icmp", "10.0.0.1:8", ""},
		{"ping", "10.0.0.1", ""},
		{"", "", ""},
	} {
		e, err := probe.ParseExchange(tt.proto, tt.where)
		switch {
		case tt.want == "" && err == nil:
			t.Errorf("%s %s: accepted as %s", tt.proto, tt.where, e)
		case tt.want != "" && (err != nil || e.String() != tt.want):
			t.Errorf("%s %s: %s, %v", tt.proto, tt.where, e, err)
		}
	}
}

func TestParseServices(t *testing.T) {
	for _, tt := range []struct {
		list string
		want []probe.Service // nil: refused
	}{
		{"8080", probe.Services(8080)},
		{"53/udp,80/tcp", []probe.Service{{Protocol: probe.UDP, Port: 53}, {Protocol: probe.TCP, Port: 80}}},
		{"80/sctp,80", []probe.Service{{Protocol: probe.SCTP, Port: 80}, {Protocol: probe.TCP, Port: 80}, {Protocol: probe.UDP, Port: 80}}},
		{"", nil}, {"0", nil}, {"65536", nil}, {"80/icmp", nil}, {"80/", nil}, {"80,", nil}, {"http", nil},
	} {
		got, err := probe.ParseServices(tt.list)
		if tt.want == nil && err == nil {
			t.Errorf("%q: accepted as %v", tt.list, got)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%q (-want +got):\n%s", tt.list, d)
		}
	}
}

func TestSteady(t *testing.T) {
	dir, _, b, _ := hosts(t)
	nobody := []netip.Addr{netip.MustParseAddr("10.1.0.99"), netip.MustParseAddr("fd00:1::99")}
	for i, dst := range b {
		for _, tt := range []struct {
			name    string
			proto   probe.Protocol
			addr    netip.AddrPort
			timeout time.Duration
			meets   probe.Expectation // "": none
		}{
			{"served", probe.TCP, netip.AddrPortFrom(dst, probe.Port), 5 * time.Second, probe.ExpectPass},
			{"served", probe.UDP, netip.AddrPortFrom(dst, probe.Port), 5 * time.Second, probe.ExpectPass},
			{"served", probe.SCTP, netip.AddrPortFrom(dst, probe.Port), 5 * time.Second, probe.ExpectPass},
			{"refused", probe.TCP, netip.AddrPortFrom(dst, 1), 5 * time.Second, ""},
			{"nobody", probe.UDP, netip.AddrPortFrom(nobody[i], 1), 100 * time.Millisecond, probe.ExpectNone},
		} {
			t.Run(tt.name+" "+string(tt.proto)+" "+dst.String(), func(t *testing.T) {
				path := fabric.Path(dir, "a")
				answered(t, probe.Exchange{Netns: path, Protocol: probe.SCTP, Addr: netip.AddrPortFrom(dst, probe.Port)})
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				began := time.Now()
				got := probe.Exchange{Netns: path, Protocol: tt.proto, Addr: tt.addr}.Steady(ctx, 5*time.Millisecond, tt.timeout)
				for _, x := range []probe.Expectation{probe.ExpectPass, probe.ExpectNone} {
					if err := got.Meets(x); (err == nil) != (tt.meets == x) {
						t.Errorf("meets %s: %v; %s", x, err, got)
					}
				}
				if n := got.Answered.Number + got.Refused.Number + got.Silent.Number; n < 2 || n > int(time.Since(began)/(5*time.Millisecond))+2 {
					t.Errorf("%s in %s at one in 5ms", got, time.Since(began))
				}
			})
		}
	}
}
