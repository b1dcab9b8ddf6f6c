//go:build linux

package linux

import (
	"context"
	"net/netip"

	"cairn.network/cairn/kernel"
)

type table[K, V comparable] struct{}

func (table[K, V]) Read(context.Context) (map[K]V, error)     { return nil, kernel.ErrUnsupported }
func (table[K, V]) Write(context.Context, map[K]V, []K) error { return kernel.ErrUnsupported }

type attacher struct{}

func (attacher) Attach(context.Context, kernel.Attachment) (string, error) {
	return "", kernel.ErrUnsupported
}
func (attacher) Detach(context.Context, kernel.Attachment) error { return kernel.ErrUnsupported }
func (attacher) Check(context.Context, kernel.Attachment) error  { return kernel.ErrUnsupported }

type conntrack struct{}

func (conntrack) Flush(context.Context, netip.Addr) error { return kernel.ErrUnsupported }

// NewSysctls returns the kernel parameters that are Cairn's business: those of
// the host as a whole and those of pods' links.
func NewSysctls(opts ...Option) kernel.Table[kernel.Sysctl, string] {
	return table[kernel.Sysctl, string]{}
}

// NewAttacher returns what makes and removes pods' links.
func NewAttacher(opts ...Option) kernel.Attacher { return attacher{} }

// NewConntrack returns the kernel's table of connections.
func NewConntrack(opts ...Option) kernel.Conntrack { return conntrack{} }

// CheckCapabilities returns an error that names, in one line, every capability
// that the agent lacks: CAP_NET_ADMIN, and CAP_NET_BIND_SERVICE when one of the
// ports that it listens on needs it.
func CheckCapabilities(ports ...int) error { return nil }
