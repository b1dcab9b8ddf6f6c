//go:build linux

package linux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// NewSysctls returns the kernel parameters that are Cairn's business: those of
// the host as a whole and those of pods' links and of tunnel devices. They are set but never taken
// back: a link's go with it, and the host's are not Cairn's alone.
func NewSysctls(opts ...Option) kernel.Table[kernel.Sysctl, string] {
	return sysctls{configure(opts)}
}

type sysctls struct{ config }

// procSys is where the parameters are files. Those below net are of the network
// namespace of the thread that opens them.
const procSys = "/proc/sys/"

func (s sysctls) Read(ctx context.Context) (map[kernel.Sysctl]string, error) {
	wanted := kernel.HostSysctls()
	links, err := s.links(ctx)
	if err != nil {
		return nil, fmt.Errorf("read sysctls: %w", err)
	}
	for _, l := range links {
		maps.Copy(wanted, kernel.SysctlsOf(l.Link))
	}
	have := make(map[kernel.Sysctl]string, len(wanted))
	err = s.in(func() error {
		for k := range wanted {
			b, err := os.ReadFile(procSys + string(k))
			switch {
			case err == nil:
				have[k] = strings.TrimSpace(string(b))
			case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EINVAL): // its link vanished meanwhile
				return fmt.Errorf("read sysctls: %w", err)
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	return have, nil
}

// links returns the links that have parameters to set.
func (s sysctls) links(ctx context.Context) ([]linkState, error) {
	conn, err := s.dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return listLinks(ctx, conn, func(l kernel.Link) bool { return kernel.SysctlsOf(l) != nil })
}

func (s sysctls) Write(ctx context.Context, set map[kernel.Sysctl]string, _ []kernel.Sysctl) error {
	// The host's come first: net/ipv4/ip_forward sets every link's forwarding.
	order := slices.SortedFunc(maps.Keys(set), func(a, b kernel.Sysctl) int {
		return cmp.Or(cmp.Compare(strings.Count(string(a), "/"), strings.Count(string(b), "/")), cmp.Compare(a, b))
	})
	var failed []error
	err := s.in(func() error {
		for _, k := range order {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("write sysctls: %w", err)
			}
			if err := setSysctl(k, set[k]); err != nil {
				failed = append(failed, &kernel.KeyError[kernel.Sysctl]{Op: "set", Key: k, Err: err})
			}
		}
		return nil
	})
	return errors.Join(append(failed, err)...)
}

// setSysctl writes one parameter in the thread's network namespace.
func setSysctl(k kernel.Sysctl, value string) error {
	if !fs.ValidPath(string(k)) {
		return fmt.Errorf("no path below %s: %w", procSys, unix.EINVAL)
	}
	f, err := os.OpenFile(procSys+string(k), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(value)
		err = cmp.Or(err, f.Close())
	}
	if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(string(k), "net/ipv6/") {
		if _, missing := os.Stat(procSys + "net/ipv6"); missing != nil {
			return fmt.Errorf("IPv6 is %w: %w", kernel.ErrUnsupported, refusal(err))
		}
	}
	if err != nil {
		return refusal(err)
	}
	return nil
}
