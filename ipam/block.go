package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
)

// errHeld says that another node holds the address.
var errHeld = errors.New("held by another node")

// check returns why a block can't be trusted: the functions below rely on
// addresses that parse, lie in the block, are in order and occur once.
func check(s *v1.IPAMBlockSpec) (netip.Prefix, error) {
	cidr, err := netip.ParsePrefix(s.CIDR)
	if err != nil {
		return cidr, err
	}
	if cidr != cidr.Masked() {
		return cidr, fmt.Errorf("cidr %s has bits set beyond its length", cidr)
	}
	var last netip.Addr
	for _, al := range s.Allocations {
		a, err := within(cidr, al.Address)
		if err != nil {
			return cidr, err
		}
		if last.IsValid() && !last.Less(a) {
			return cidr, fmt.Errorf("allocation of %s out of order", a)
		}
		if al.Node == "" {
			return cidr, fmt.Errorf("allocation of %s without node", a)
		}
		last = a
	}
	seen := make(map[netip.Addr]bool, len(s.Released))
	for _, r := range s.Released {
		a, err := within(cidr, r.Address)
		if err != nil {
			return cidr, err
		}
		if _, held := find(s, a); held || seen[a] {
			return cidr, fmt.Errorf("released address %s occurs twice", a)
		}
		seen[a] = true
	}
	return cidr, nil
}

func within(cidr netip.Prefix, text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return a, err
	}
	if !cidr.Contains(a) {
		return a, fmt.Errorf("address %s outside the block", a)
	}
	return a, nil
}

// find returns where the allocation of an address is, or belongs.
func find(s *v1.IPAMBlockSpec, a netip.Addr) (int, bool) {
	return slices.BinarySearchFunc(s.Allocations, a, func(al v1.Allocation, a netip.Addr) int {
		return parsed(al.Address).Compare(a)
	})
}

// parsed parses an address that check has seen.
func parsed(text string) netip.Addr {
	a, _ := netip.ParseAddr(text)
	return a
}

// hold makes node the holder of a free address, which need not have rested.
// Holding what the node holds already changes nothing.
func hold(s *v1.IPAMBlockSpec, a netip.Addr, node string) error {
	if cidr, err := netip.ParsePrefix(s.CIDR); err != nil || !cidr.Contains(a) {
		return fmt.Errorf("hold %s: not an address of block %s", a, s.CIDR)
	}
	i, ok := find(s, a)
	if ok {
		if by := s.Allocations[i].Node; by != node {
			return fmt.Errorf("hold %s: %w, %s", a, errHeld, by)
		}
		return nil
	}
	s.Allocations = slices.Insert(s.Allocations, i, v1.Allocation{Address: a.String(), Node: node})
	s.Released = slices.DeleteFunc(s.Released, func(r v1.Release) bool { return parsed(r.Address) == a })
	return nil
}

// own sets who uses an address that node holds; nil: nobody.
func own(s *v1.IPAMBlockSpec, a netip.Addr, node string, owner *v1.AllocationOwner) error {
	i, ok := find(s, a)
	if !ok || s.Allocations[i].Node != node {
		return fmt.Errorf("own %s: not held by %s", a, node)
	}
	s.Allocations[i].Owner = owner
	return nil
}

// release ends node's hold on an address. It was last used until since; zero
// says that nobody used it, so it needs no rest. The API knows whole seconds:
// they are rounded up, for an address must not rest too short.
func release(s *v1.IPAMBlockSpec, a netip.Addr, node string, since time.Time) error {
	i, ok := find(s, a)
	if !ok || s.Allocations[i].Node != node {
		return fmt.Errorf("release %s: not held by %s", a, node)
	}
	s.Allocations = slices.Delete(s.Allocations, i, i+1)
	if since.IsZero() {
		return nil
	}
	at := since.Round(0).UTC()
	if whole := at.Truncate(time.Second); !whole.Equal(at) {
		at = whole.Add(time.Second)
	}
	// Nearly always the last place; not so when an address rested here first.
	i = len(s.Released)
	for i > 0 && s.Released[i-1].At.After(at) {
		i--
	}
	s.Released = slices.Insert(s.Released, i, v1.Release{Address: a.String(), At: metav1.NewTime(at)})
	return nil
}

// freeAddr is an address that nobody holds, and when it was freed: zero if
// nobody has held it.
type freeAddr struct {
	addr  netip.Addr
	since time.Time
}

// free returns up to n addresses that may be held, in the order in which to take
// them: never held before first, then first freed first; none that still rests.
func free(s *v1.IPAMBlockSpec, now time.Time, coolDown time.Duration, n int) []freeAddr {
	cidr, err := netip.ParsePrefix(s.CIDR)
	if err != nil || n <= 0 {
		return nil
	}
	used := make(map[netip.Addr]bool, len(s.Allocations)+len(s.Released))
	for _, al := range s.Allocations {
		used[parsed(al.Address)] = true
	}
	for _, r := range s.Released {
		used[parsed(r.Address)] = true
	}
	var out []freeAddr
	for a := cidr.Addr(); cidr.Contains(a) && len(out) < n; a = a.Next() {
		if !used[a] {
			out = append(out, freeAddr{addr: a})
		}
	}
	for _, r := range s.Released {
		if len(out) < n && rested(r.At.Time, now, coolDown) {
			out = append(out, freeAddr{addr: parsed(r.Address), since: r.At.Time})
		}
	}
	return out
}

// rested says whether an address freed at since may be used again. A time in the
// future by more than the cool-down tells of a clock that jumped, which must not
// freeze the address.
func rested(since, now time.Time, coolDown time.Duration) bool {
	return since.IsZero() || now.Sub(since).Abs() >= coolDown
}

// firstRested returns when the next resting address of a block may be used;
// zero if none rests.
func firstRested(s *v1.IPAMBlockSpec, now time.Time, coolDown time.Duration) time.Time {
	var first time.Time
	for _, r := range s.Released {
		if due := r.At.Add(coolDown); !rested(r.At.Time, now, coolDown) && (first.IsZero() || due.Before(first)) {
			first = due
		}
	}
	return first
}

// size returns how many addresses a prefix has, as exactly as a float64 can.
func size(p netip.Prefix) float64 {
	n := 1.0
	for range p.Addr().BitLen() - p.Bits() {
		n *= 2
	}
	return n
}

// ownerOf returns how a block records the user of an address.
func ownerOf(a Assignment) *v1.AllocationOwner {
	return &v1.AllocationOwner{ContainerID: a.ContainerID, Interface: a.Interface, Namespace: a.Namespace, Pod: a.Pod}
}

// handleOf returns the handle of an owner.
func handleOf(o *v1.AllocationOwner) Handle {
	return Handle{ContainerID: o.ContainerID, Interface: o.Interface}
}

func sameOwner(a, b *v1.AllocationOwner) bool {
	return a == b || a != nil && b != nil && *a == *b
}
