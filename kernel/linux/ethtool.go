//go:build linux

package linux

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"
)

// checksumOffload is the feature of a link that leaves the checksums of any kind of
// packet to the next link, in the end to the network card (ethtool(8), -K).
const checksumOffload = "tx-checksum-ip-generic"

// ethtool calls do with the features of links in the driver's network namespace.
// That a link has no such thing is no kernel.ErrUnsupported, which tunnels take for
// a kernel without that kind of link.
func (c config) ethtool(do func(*ethtool.Ethtool) error) error {
	return c.in(func() error {
		e, err := ethtool.NewEthtool()
		if err != nil {
			return fmt.Errorf("open socket for ethtool: %w", refusal(err))
		}
		defer e.Close()
		if err := do(e); !errors.Is(err, unix.EOPNOTSUPP) {
			return refusal(err)
		}
		return unix.EOPNOTSUPP
	})
}

// checksumsOffloaded says whether a link leaves checksums to others.
func (c config) checksumsOffloaded(link string) (on bool, err error) {
	err = c.ethtool(func(e *ethtool.Ethtool) error {
		features, err := e.Features(link)
		on = features[checksumOffload]
		return err
	})
	if err != nil {
		return false, fmt.Errorf("read the features of %s: %w", link, err)
	}
	return on, nil
}

func (c config) offloadChecksums(link string, on bool) error {
	err := c.ethtool(func(e *ethtool.Ethtool) error {
		return e.Change(link, map[string]bool{checksumOffload: on})
	})
	if err != nil {
		return fmt.Errorf("set checksum offload of %s: %w", link, err)
	}
	return nil
}

// linkDriver returns the driver of a link (ethtool(8), -i), or "" where none is
// told.
func linkDriver(conn *netlink.Conn, link string) string {
	raw, err := conn.SyscallConn()
	if err != nil {
		return ""
	}
	var driver string
	err = raw.Control(func(fd uintptr) {
		if told, err := unix.IoctlGetEthtoolDrvinfo(int(fd), link); err == nil {
			name, _, _ := bytes.Cut(told.Driver[:], []byte{0})
			driver = string(name)
		}
	})
	if err != nil {
		return ""
	}
	return driver
}
