// Package kernel holds the objects of a Linux host's network as comparable
// values, and the seam through which they are read and written.
//
// It guarantees that equal things are equal values: addresses are unmapped,
// prefixes masked, next hops in one canonical order. It does no I/O: the driver
// is kernel/linux, and Fake behaves like it in memory, errnos included.
package kernel
