//go:build linux

// Package linux is the driver of package kernel: it reads and writes the
// network of a Linux host by netlink and /proc/sys.
//
// It guarantees that nobody else's objects are touched: a route of another
// protocol is never replaced nor listed as ours, a link without Cairn's alias is
// never taken for a pod's or for a tunnel. Only the names of tunnel devices, other
// than tunl0, are Cairn's: a link that has one makes way. It holds no view of the world between calls: names
// are resolved when they are used, and what is read is what the kernel has.
//
// Everything acts in the network namespace of the calling thread, which is the
// process's own unless somebody moved that thread; option In names another.
package linux

import "errors"

// Option changes what a constructor returns.
type Option func(*config)

// In makes the driver act in the network namespace that fd is an open file of.
// The caller keeps fd open as long as the driver is used.
func In(fd int) Option {
	return func(c *config) { c.netns = fd }
}

// config is what options set.
type config struct {
	netns int // 0: the calling thread's
}

func configure(opts []Option) config {
	var c config
	for _, o := range opts {
		o(&c)
	}
	return c
}

// errShort says that the kernel's message ends too early.
var errShort = errors.New("message is too short")
