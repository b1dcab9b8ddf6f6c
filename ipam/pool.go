package ipam

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"iter"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/selector"
)

// pool is an IPPool as this node sees it. It is comparable.
type pool struct {
	name   string
	cidr   netip.Prefix
	block  int    // prefix length of blocks
	refuse string // why this node takes no new addresses from it; "": it does
}

// poolOf parses a pool. A pool without a usable range is an error.
func poolOf(p *v1.IPPool, labels map[string]string) (pool, error) {
	cidr, err := netip.ParsePrefix(p.Spec.CIDR)
	if err != nil {
		return pool{}, err
	}
	out := pool{name: p.Name, cidr: cidr.Masked(), block: p.Spec.BlockSize}
	if out.block < cidr.Bits() || out.block > cidr.Addr().BitLen() {
		return pool{}, fmt.Errorf("blocks of length %d do not fit into %s", out.block, cidr)
	}
	nodes, err := selector.Parse(p.Spec.NodeSelector)
	if err != nil {
		return pool{}, fmt.Errorf("nodeSelector: %w", err)
	}
	switch {
	case p.DeletionTimestamp != nil:
		out.refuse = "is being deleted"
	case p.Spec.Disabled:
		out.refuse = "is disabled"
	case !nodes.Match(labels):
		out.refuse = "does not select this node"
	}
	return out, nil
}

func (p pool) is4() bool { return p.cidr.Addr().Is4() }

// holds says whether a block may have been cut from the pool.
func (p pool) holds(block netip.Prefix) bool {
	return p.cidr.Contains(block.Addr()) && block.Bits() >= p.cidr.Bits()
}

// blockAt returns the pool's block with the address.
func (p pool) blockAt(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, p.block).Masked() }

// blocks returns all of the pool's blocks in an order that is the node's own, so
// that nodes which claim at the same time seldom want the same block. Of pools
// with more than 2^63 blocks the first 2^63 are used.
func (p pool) blocks(node string) iter.Seq[netip.Prefix] {
	h := fnv.New64a()
	h.Write([]byte(node))
	// An odd step visits every number below a power of two.
	start, step := mix(h.Sum64()), mix(h.Sum64()+1)|1
	mask := uint64(1)<<min(p.block-p.cidr.Bits(), 63) - 1
	return func(yield func(netip.Prefix) bool) {
		for i := uint64(0); ; i++ {
			if !yield(p.nth((start+i*step)&mask)) || i == mask {
				return
			}
		}
	}
}

// mix spreads the difference of similar numbers over all bits (the finalizer of
// splitmix64), for node names mostly differ in their last character.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// nth returns the pool's block number n.
func (p pool) nth(n uint64) netip.Prefix {
	base := p.cidr.Addr().As16()
	hi, lo := binary.BigEndian.Uint64(base[:8]), binary.BigEndian.Uint64(base[8:])
	shift := uint(p.cidr.Addr().BitLen() - p.block)
	addHi, addLo := uint64(0), n<<shift // a shift by 64 or more gives 0
	if shift >= 64 {
		addHi = n << (shift - 64)
	} else if shift > 0 {
		addHi = n >> (64 - shift)
	}
	lo, carry := bits.Add64(lo, addLo, 0)
	hi, _ = bits.Add64(hi, addHi, carry)
	binary.BigEndian.PutUint64(base[:8], hi)
	binary.BigEndian.PutUint64(base[8:], lo)
	a := netip.AddrFrom16(base)
	if p.is4() {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, p.block)
}

// claims is what blocks there are, for finding room between them.
type claims struct {
	exact map[netip.Prefix]bool
	sizes []int // lengths that occur
}

func newClaims(blocks []netip.Prefix) claims {
	c := claims{exact: make(map[netip.Prefix]bool, len(blocks))}
	for _, b := range blocks {
		c.add(b)
	}
	return c
}

func (c *claims) add(b netip.Prefix) {
	c.exact[b] = true
	if !slices.Contains(c.sizes, b.Bits()) {
		c.sizes = append(c.sizes, b.Bits())
	}
}

// overlap returns a block that shares addresses with p, other than p itself.
func (c claims) overlap(p netip.Prefix) (netip.Prefix, bool) {
	for _, size := range c.sizes {
		if size < p.Bits() {
			if wider := netip.PrefixFrom(p.Addr(), size).Masked(); c.exact[wider] {
				return wider, true
			}
		} else if size > p.Bits() {
			for b := range c.exact {
				if b.Bits() == size && p.Contains(b.Addr()) {
					return b, true
				}
			}
		}
	}
	return netip.Prefix{}, false
}

// around returns a block that an address lies in.
func (c claims) around(a netip.Addr) (netip.Prefix, bool) {
	for _, size := range c.sizes {
		if b, err := a.Prefix(size); err == nil && c.exact[b] {
			return b, true
		}
	}
	return netip.Prefix{}, false
}

// count returns how many blocks of exactly the pool's own size lie in it.
func (c claims) count(p pool) float64 {
	n := 0.0
	for b := range c.exact {
		if b.Bits() == p.block && p.holds(b) {
			n++
		}
	}
	return n
}

// full says quickly, for pools of one block size, that there is no room.
func (c claims) full(p pool) bool {
	return c.count(p)*size(netip.PrefixFrom(p.cidr.Addr(), p.block)) >= size(p.cidr)
}

// choose returns the pools of a family that a request may use, in order. Wanted
// are names or CIDRs; none: all. The error says why it can't have them.
func choose(pools []pool, ip4 bool, wanted []string) ([]pool, error) {
	var out []pool
	if len(wanted) == 0 {
		for _, p := range pools {
			if p.is4() == ip4 && p.refuse == "" {
				out = append(out, p)
			}
		}
		return out, nil
	}
	for _, w := range wanted {
		i := slices.IndexFunc(pools, func(p pool) bool { return p.name == w || sameCIDR(p.cidr, w) })
		if i < 0 {
			return nil, fmt.Errorf("there is no pool %s", w)
		}
		if p := pools[i]; p.refuse != "" {
			return nil, fmt.Errorf("pool %s %s", w, p.refuse)
		} else if p.is4() == ip4 && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out, nil
}

func sameCIDR(p netip.Prefix, text string) bool {
	q, err := netip.ParsePrefix(text)
	return err == nil && q == p
}

func names(pools []pool) string {
	var out []string
	for _, p := range pools {
		out = append(out, p.name)
	}
	return strings.Join(out, ", ")
}

func familyOf(ip4 bool) string {
	if ip4 {
		return "IPv4"
	}
	return "IPv6"
}
