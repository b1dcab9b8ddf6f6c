package ipam

import (
	"net/netip"

	v1 "cairn.network/cairn/api/v1"
)

// Usage counts addresses. Size and Free are exact up to 2^53, beyond which only
// IPv6 pools go.
type Usage struct {
	Size     float64 // all
	Used     int     // with an owner
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
// by name; blocks of pools that are gone come under the pool's name with an
// invalid CIDR. What does not parse is left out.
func Summarize(pools []*v1.IPPool, blocks []*v1.IPAMBlock) []PoolUsage { return nil }
