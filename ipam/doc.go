// Package ipam gives addresses to pods: pure arithmetic of blocks, and the
// allocator of one node.
//
// It guarantees that no two users have the same address at the same time, in
// whatever order agents, disks and datastores fail, and that nothing given back
// is lost. Two sentences carry that: the datastore decides which node holds an
// address (compare-and-swap on the block); the node's journal decides which
// container uses an address that the node holds. An address that a live link on
// the node carries is in use, whatever the journal says.
//
// An address goes this way: free in a block; held by the node as part of its
// reserve (a compare-and-swap); used by a container (a journal record, on disk
// before the answer); recorded with its owner in the block (written behind, one
// compare-and-swap for all that changed); released (a journal record); at rest
// for the cool-down, first freed first; used again here, or given back.
//
// It leaves to others to make links and routes, to flush the connections of a
// freed address, and to find out which containers are gone.
package ipam
