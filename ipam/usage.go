package ipam

import (
	"maps"
	"net/netip"
	"slices"

	v1 "cairn.network/cairn/api/v1"
)

// Usage counts addresses. Size and Free are exact up to 2^53, beyond which only
// IPv6 pools go.
type Usage struct {
	Size     float64 // all
	Used     int     // with an owner
	Tunnels  int     // of those, by nodes' own tunnel devices
	Reserved int     // held by a node, not used
	Free     float64 // held by no node
	Borrowed int     // of those held, by another node than the block's
}

// PoolUsage is the usage of a pool.
type PoolUsage struct {
	Name string
	CIDR netip.Prefix // invalid: there is no such pool (any more)
	Usage
	Blocks []BlockUsage // ordered by CIDR
}

// BlockUsage is the usage of a block.
type BlockUsage struct {
	CIDR  netip.Prefix
	Node  string
	State v1.BlockState
	Usage
}

// Summarize counts the addresses of each pool and block. The pools come ordered
// by name; blocks of a pool that is gone come under its name with an invalid
// CIDR, and count alone there. What does not parse is left out.
func Summarize(pools []*v1.IPPool, blocks []*v1.IPAMBlock) []PoolUsage {
	byName := map[string]*PoolUsage{}
	for _, p := range pools {
		if cidr, err := netip.ParsePrefix(p.Spec.CIDR); err == nil {
			n := size(cidr)
			byName[p.Name] = &PoolUsage{Name: p.Name, CIDR: cidr.Masked(), Usage: Usage{Size: n, Free: n}}
		}
	}
	for _, o := range blocks {
		b, err := usageOf(&o.Spec)
		if err != nil {
			continue
		}
		p := byName[o.Spec.Pool]
		if p == nil {
			p = &PoolUsage{Name: o.Spec.Pool}
			byName[o.Spec.Pool] = p
		}
		if !p.CIDR.IsValid() {
			p.Size += b.Size
			p.Free += b.Size
		}
		p.Used += b.Used
		p.Tunnels += b.Tunnels
		p.Reserved += b.Reserved
		p.Borrowed += b.Borrowed
		p.Free -= b.Size - b.Free
		p.Blocks = append(p.Blocks, b)
	}
	var out []PoolUsage
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		p := byName[name]
		slices.SortFunc(p.Blocks, func(x, y BlockUsage) int { return x.CIDR.Compare(y.CIDR) })
		out = append(out, *p)
	}
	return out
}

func usageOf(s *v1.IPAMBlockSpec) (BlockUsage, error) {
	cidr, err := check(s)
	if err != nil {
		return BlockUsage{}, err
	}
	b := BlockUsage{CIDR: cidr, Node: s.Node, State: s.State, Usage: Usage{Size: size(cidr)}}
	for _, al := range s.Allocations {
		if al.Owner != nil {
			b.Used++
			if handleOf(al.Owner).IsTunnel() {
				b.Tunnels++
			}
		} else {
			b.Reserved++
		}
		if al.Node != s.Node {
			b.Borrowed++
		}
	}
	b.Free = b.Size - float64(b.Used+b.Reserved)
	return b, nil
}

// Find returns the block that an address lies in and its allocation; nil where
// there is none.
func Find(blocks []*v1.IPAMBlock, a netip.Addr) (*v1.IPAMBlock, *v1.Allocation) {
	for _, o := range blocks {
		cidr, err := check(&o.Spec)
		if err != nil || !cidr.Contains(a) {
			continue
		}
		if i, ok := find(&o.Spec, a); ok {
			return o, &o.Spec.Allocations[i]
		}
		return o, nil
	}
	return nil, nil
}
