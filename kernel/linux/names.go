//go:build linux

package linux

import (
	"fmt"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// names translates between the names of links and their indexes. It asks the
// kernel once for each link (netdevice(7)) and lives for one call only, since
// both change: nothing is ever resolved by an old answer.
type names struct {
	conn   *netlink.Conn
	index  map[string]uint32
	byName map[uint32]string
}

func newNames(conn *netlink.Conn) *names {
	return &names{conn: conn, index: make(map[string]uint32), byName: make(map[uint32]string)}
}

// indexOf returns the index of the link with this name.
func (n *names) indexOf(name string) (uint32, error) {
	if i, ok := n.index[name]; ok {
		return i, nil
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("link %q: %w", name, syscall.ENODEV)
	}
	if err := n.ioctl(unix.SIOCGIFINDEX, req); err != nil {
		return 0, fmt.Errorf("link %s: %w", name, err)
	}
	n.index[name] = req.Uint32()
	return req.Uint32(), nil
}

// name returns the name of the link with this index, and "#" with the number
// when there is none any more.
func (n *names) name(index uint32) string {
	if name, ok := n.byName[index]; ok {
		return name
	}
	name := fmt.Sprintf("#%d", index)
	if req, err := unix.NewIfreq(""); err == nil {
		req.SetUint32(index)
		if n.ioctl(unix.SIOCGIFNAME, req) == nil {
			name = req.Name()
		}
	}
	n.byName[index] = name
	return name
}

func (n *names) ioctl(request uint, value *unix.Ifreq) error {
	raw, err := n.conn.SyscallConn()
	if err != nil {
		return err
	}
	var ioctlErr error
	if err := raw.Control(func(fd uintptr) { ioctlErr = unix.IoctlIfreq(int(fd), request, value) }); err != nil {
		return err
	}
	return ioctlErr
}
