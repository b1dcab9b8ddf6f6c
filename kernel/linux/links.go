//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// listLinks returns the links that want says true for.
func listLinks(ctx context.Context, conn *netlink.Conn, want func(kernel.Link) bool) ([]linkState, error) {
	var found []linkState
	err := dump(ctx, conn, linkRequest(), func() { found = nil }, func(m netlink.Message) error {
		l, ok, err := parseLink(m.Data)
		if ok && want(l.Link) {
			found = append(found, l)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return found, nil
}

// getLink returns what the kernel tells of the link with this name, and false when
// there is none.
func getLink(conn *netlink.Conn, name string) (data []byte, exists bool, err error) {
	attrs := netlink.NewAttributeEncoder()
	attrs.String(unix.IFLA_IFNAME, name)
	m, err := request(unix.RTM_GETLINK, netlink.Request, make([]byte, unix.SizeofIfInfomsg), attrs)
	if err != nil {
		return nil, false, err
	}
	replies, err := conn.Execute(m)
	switch {
	case errors.Is(err, unix.ENODEV):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("look up link %s: %w", name, refusal(err))
	case len(replies) != 1:
		return nil, false, fmt.Errorf("look up link %s: %d messages in place of an answer", name, len(replies))
	}
	return replies[0].Data, true, nil
}

// tunnelLinks finds tunnel devices of Cairn's by name. Like names it asks the
// kernel once for each and lives for one call only.
type tunnelLinks struct {
	conn  *netlink.Conn
	found map[string]foundLink
}

type foundLink struct {
	linkState
	err error
}

func newTunnelLinks(conn *netlink.Conn) *tunnelLinks {
	return &tunnelLinks{conn: conn, found: make(map[string]foundLink)}
}

// find returns the device, or ENODEV, or kernel.ErrForeign for another's link.
func (t *tunnelLinks) find(name string) (linkState, error) {
	f, known := t.found[name]
	if !known {
		f.linkState, f.err = t.ask(name)
		t.found[name] = f
	}
	return f.linkState, f.err
}

func (t *tunnelLinks) ask(name string) (linkState, error) {
	data, exists, err := getLink(t.conn, name)
	if err != nil {
		return linkState{}, err
	}
	if !exists {
		return linkState{}, fmt.Errorf("link %s: %w", name, unix.ENODEV)
	}
	l, _, err := parseLink(data)
	if err == nil && !kernel.IsTunnelLink(l.Link) {
		err = fmt.Errorf("link %s: %w", name, kernel.ErrForeign)
	}
	return l, err
}
