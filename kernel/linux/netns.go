//go:build linux

package linux

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	vishnet "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// in runs f in the network namespace of the driver: on the calling goroutine
// when that is the thread's own, otherwise on a thread that goes there and back.
// What f opens (sockets, files below /proc/sys/net) belongs to that namespace.
func (c config) in(f func() error) error {
	if c.netns == 0 {
		return f()
	}
	result := make(chan error, 1)
	go func() {
		// A thread that can't come back must not be used for anything else: it
		// stays locked, and ends with its goroutine.
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			result <- fmt.Errorf("open the thread's network namespace: %w", err)
			return
		}
		defer home.Close()
		if err := unix.Setns(c.netns, unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			result <- fmt.Errorf("enter network namespace: %w", refusal(err))
			return
		}
		err = f()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// handle opens a handle for links, addresses and neighbours.
func (c config) handle() (h *vishnet.Handle, err error) {
	err = c.in(func() (err error) {
		h, err = vishnet.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", refusal(err))
	}
	return h, nil
}

// whole returns a list that did not change while it was read, as dump does: before
// Linux 6.9 any address of the namespace that comes or goes breaks in on a link's.
func whole[T any](list func() ([]T, error)) ([]T, error) {
	for range dumpTries {
		if got, err := list(); !errors.Is(err, vishnet.ErrDumpInterrupted) {
			return got, err
		}
	}
	return nil, fmt.Errorf("list kept changing while it was read: %w", kernel.ErrBusy)
}

// openNetns opens a pod's network namespace, which must not be the driver's own:
// to configure that as a pod's would cut the host off.
func (c config) openNetns(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		f.Close()
		return nil, fmt.Errorf("%s is no network namespace", path)
	}
	own, err := c.isOwn(f)
	if err == nil && own {
		err = fmt.Errorf("%s is the host's own network namespace", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// isOwn says whether f is the driver's network namespace.
func (c config) isOwn(f *os.File) (bool, error) {
	var own, other unix.Stat_t
	var err error
	if c.netns != 0 {
		err = unix.Fstat(c.netns, &own)
	} else {
		err = unix.Stat("/proc/thread-self/ns/net", &own)
	}
	if err == nil {
		err = unix.Fstat(int(f.Fd()), &other)
	}
	if err != nil {
		return false, fmt.Errorf("compare network namespaces: %w", err)
	}
	return own.Dev == other.Dev && own.Ino == other.Ino, nil
}
