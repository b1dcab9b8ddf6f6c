// Package ipam gives addresses to pods: pure arithmetic of blocks, and the
// allocator of one node.
//
// It guarantees that no two users have the same address at the same time, in
// whatever order agents, disks and datastores fail, and that nothing given back
// is lost. Two sentences carry that: the datastore decides which node holds an
// address (compare-and-swap on the block); the node's journal decides which
// container uses an address that the node holds. An address that a live link on
// the node carries is in use, whatever the journal says.
package ipam
