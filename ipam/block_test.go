package ipam

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func spec(cidr string, held ...string) *v1.IPAMBlockSpec {
	s := &v1.IPAMBlockSpec{CIDR: cidr, Pool: "p", Node: "n1", State: v1.BlockConfirmed}
	for _, h := range held {
		a, node, _ := strings.Cut(h, "@")
		s.Allocations = append(s.Allocations, v1.Allocation{Address: a, Node: node})
	}
	return s
}

func freed(s *v1.IPAMBlockSpec, at time.Time, addrs ...string) *v1.IPAMBlockSpec {
	for _, a := range addrs {
		s.Released = append(s.Released, v1.Release{Address: a, At: metav1.NewTime(at)})
	}
	return s
}

func TestFree(t *testing.T) {
	tests := []struct {
		name string
		spec *v1.IPAMBlockSpec
		n    int
		want string
	}{
		{"empty block, none wanted", spec("10.0.0.0/30"), 0, ""},
		{"empty block, one wanted", spec("10.0.0.0/30"), 1, "10.0.0.0"},
		{"whole block, no exceptions", spec("10.0.0.0/30"), 9, "10.0.0.0 10.0.0.1 10.0.0.2 10.0.0.3"},
		{"whole IPv6 block", spec("fd00::/126"), 9, "fd00:: fd00::1 fd00::2 fd00::3"},
		{"last IPv4 address", spec("255.255.255.254/31"), 9, "255.255.255.254 255.255.255.255"},
		{"/32", spec("10.0.0.7/32"), 9, "10.0.0.7"},
		{"/32 held", spec("10.0.0.7/32", "10.0.0.7@n1"), 9, ""},
		{"/128", spec("fd00::7/128"), 9, "fd00::7"},
		{"gap", spec("10.0.0.0/30", "10.0.0.0@n1", "10.0.0.2@n2"), 9, "10.0.0.1 10.0.0.3"},
		{"never held before freed", freed(spec("10.0.0.0/30", "10.0.0.2@n1"), noon.Add(-time.Hour), "10.0.0.0"), 9, "10.0.0.1 10.0.0.3 10.0.0.0"},
		{"first freed first", freed(freed(spec("10.0.0.0/31"), noon.Add(-time.Hour), "10.0.0.1"), noon.Add(-time.Minute), "10.0.0.0"), 9, "10.0.0.1 10.0.0.0"},
		{"rested just now", freed(spec("10.0.0.0/32"), noon.Add(-30*time.Second), "10.0.0.0"), 9, "10.0.0.0"},
		{"rests for another second", freed(spec("10.0.0.0/32"), noon.Add(-29*time.Second), "10.0.0.0"), 9, ""},
		{"freed by a clock slightly ahead", freed(spec("10.0.0.0/32"), noon.Add(10*time.Second), "10.0.0.0"), 9, ""},
		{"freed by a clock far ahead", freed(spec("10.0.0.0/32"), noon.Add(time.Hour), "10.0.0.0"), 9, "10.0.0.0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, f := range free(tt.spec, noon, 30*time.Second, tt.n) {
				got = append(got, f.addr.String())
			}
			if d := cmp.Diff(tt.want, strings.Join(got, " ")); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestHoldOwnRelease(t *testing.T) {
	owner := &v1.AllocationOwner{ContainerID: "c1", Interface: "eth0"}
	at := netip.MustParseAddr
	tests := []struct {
		name  string
		spec  *v1.IPAMBlockSpec
		do    func(*v1.IPAMBlockSpec) error
		want  *v1.IPAMBlockSpec // nil: unchanged
		error string
	}{
		{"hold in order", spec("10.0.0.0/29", "10.0.0.1@n1", "10.0.0.3@n1"),
			func(s *v1.IPAMBlockSpec) error { return hold(s, at("10.0.0.2"), "n2") },
			spec("10.0.0.0/29", "10.0.0.1@n1", "10.0.0.2@n2", "10.0.0.3@n1"), ""},
		{"hold numerically, not by text", spec("10.0.0.0/24", "10.0.0.9@n1"),
			func(s *v1.IPAMBlockSpec) error { return hold(s, at("10.0.0.10"), "n1") },
			spec("10.0.0.0/24", "10.0.0.9@n1", "10.0.0.10@n1"), ""},
		{"hold a freed one", freed(spec("fd00::/126"), noon, "fd00::1", "fd00::2"),
			func(s *v1.IPAMBlockSpec) error { return hold(s, at("fd00::1"), "n1") },
			freed(spec("fd00::/126", "fd00::1@n1"), noon, "fd00::2"), ""},
		{"hold again", spec("10.0.0.0/32", "10.0.0.0@n1"),
			func(s *v1.IPAMBlockSpec) error { return hold(s, at("10.0.0.0"), "n1") }, nil, ""},
		{"hold another's", spec("10.0.0.0/32", "10.0.0.0@n2"),
			func(s *v1.IPAMBlockSpec) error { return hold(s, at("10.0.0.0"), "n1") }, nil, "held by another node, n2"},
		{"hold outside", spec("10.0.0.0/32"),
			func(s *v1.IPAMBlockSpec) error { return hold(s, at("10.0.0.1"), "n1") }, nil, "not an address of block"},
		{"hold of the other family", spec("10.0.0.0/32"),
			func(s *v1.IPAMBlockSpec) error { return hold(s, at("::ffff:10.0.0.0"), "n1") }, nil, "not an address of block"},
		{"own", spec("10.0.0.0/32", "10.0.0.0@n1"),
			func(s *v1.IPAMBlockSpec) error { return own(s, at("10.0.0.0"), "n1", owner) },
			&v1.IPAMBlockSpec{CIDR: "10.0.0.0/32", Pool: "p", Node: "n1", State: v1.BlockConfirmed,
				Allocations: []v1.Allocation{{Address: "10.0.0.0", Node: "n1", Owner: owner}}}, ""},
		{"own what is free", spec("10.0.0.0/32"),
			func(s *v1.IPAMBlockSpec) error { return own(s, at("10.0.0.0"), "n1", owner) }, nil, "not held by n1"},
		{"own another's", spec("10.0.0.0/32", "10.0.0.0@n2"),
			func(s *v1.IPAMBlockSpec) error { return own(s, at("10.0.0.0"), "n1", owner) }, nil, "not held by n1"},
		{"release unused", spec("10.0.0.0/31", "10.0.0.0@n1", "10.0.0.1@n1"),
			func(s *v1.IPAMBlockSpec) error { return release(s, at("10.0.0.0"), "n1", time.Time{}) },
			spec("10.0.0.0/31", "10.0.0.1@n1"), ""},
		{"release used, on the second", spec("10.0.0.0/32", "10.0.0.0@n1"),
			func(s *v1.IPAMBlockSpec) error { return release(s, at("10.0.0.0"), "n1", noon) },
			freed(spec("10.0.0.0/32"), noon, "10.0.0.0"), ""},
		{"release used, a moment later", spec("10.0.0.0/32", "10.0.0.0@n1"),
			func(s *v1.IPAMBlockSpec) error { return release(s, at("10.0.0.0"), "n1", noon.Add(1)) },
			freed(spec("10.0.0.0/32"), noon.Add(time.Second), "10.0.0.0"), ""},
		{"release one that rested here", freed(spec("10.0.0.0/31", "10.0.0.0@n1"), noon, "10.0.0.1"),
			func(s *v1.IPAMBlockSpec) error { return release(s, at("10.0.0.0"), "n1", noon.Add(-time.Second)) },
			freed(freed(spec("10.0.0.0/31"), noon.Add(-time.Second), "10.0.0.0"), noon, "10.0.0.1"), ""},
		{"release another's", spec("10.0.0.0/32", "10.0.0.0@n2"),
			func(s *v1.IPAMBlockSpec) error { return release(s, at("10.0.0.0"), "n1", noon) }, nil, "not held by n1"},
		{"release twice", freed(spec("10.0.0.0/32"), noon, "10.0.0.0"),
			func(s *v1.IPAMBlockSpec) error { return release(s, at("10.0.0.0"), "n1", noon) }, nil, "not held by n1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.spec.DeepCopy()
			err := tt.do(got)
			if tt.error == "" && err != nil || tt.error != "" && (err == nil || !strings.Contains(err.Error(), tt.error)) {
				t.Errorf("error %v, want %q", err, tt.error)
			}
			want := tt.want
			if want == nil {
				want = tt.spec
			}
			if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name string
		spec *v1.IPAMBlockSpec
		want string // "": sound
	}{
		{"empty", spec("10.0.0.0/26"), ""},
		{"used", freed(spec("10.0.0.0/26", "10.0.0.9@n1", "10.0.0.10@n2"), noon, "10.0.0.1"), ""},
		{"used IPv6", freed(spec("fd00::/122", "fd00::1@n1"), noon, "fd00::2"), ""},
		{"no range", spec(""), "no '/'"},
		{"bits beyond", spec("10.0.0.1/26"), "beyond its length"},
		{"no address", spec("10.0.0.0/26", "x@n1"), "unable to parse"},
		{"outside", spec("10.0.0.0/26", "10.0.0.64@n1"), "outside the block"},
		{"twice", spec("10.0.0.0/26", "10.0.0.1@n1", "10.0.0.1@n2"), "out of order"},
		{"out of order", spec("10.0.0.0/26", "10.0.0.10@n1", "10.0.0.9@n1"), "out of order"},
		{"nobody's", spec("10.0.0.0/26", "10.0.0.10@"), "without node"},
		{"held and freed", freed(spec("10.0.0.0/26", "10.0.0.1@n1"), noon, "10.0.0.1"), "occurs twice"},
		{"freed twice", freed(spec("10.0.0.0/26"), noon, "10.0.0.1", "10.0.0.1"), "occurs twice"},
		{"freed outside", freed(spec("10.0.0.0/26"), noon, "fd00::1"), "outside the block"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := check(tt.spec)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
