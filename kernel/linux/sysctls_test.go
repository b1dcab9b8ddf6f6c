//go:build linux

package linux

import (
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// TestReadOnlyProcSys mounts /proc/sys read-only for one thread, as container
// engines do.
func TestReadOnlyProcSys(t *testing.T) {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		for _, step := range []func() error{
			func() error { return unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET) },
			func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
			func() error { return unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, "") },
			func() error { return unix.Mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "") },
		} {
			if err := step(); err != nil {
				t.Errorf("prepare: %v", err)
			}
		}
		result <- NewSysctls().Write(t.Context(), map[kernel.Sysctl]string{"net/ipv4/ip_forward": "1"}, nil)
	}()
	err := <-result
	const want = "set net/ipv4/ip_forward: permission denied: read-only file system"
	if !errors.Is(err, kernel.ErrPermission) || !errors.Is(err, unix.EROFS) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestBadSysctls(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		key   kernel.Sysctl
		value string
		want  error
	}{
		{"net/ipv4/ip_forward", "yes", unix.EINVAL},
		{"../self/oom_score_adj", "0", unix.EINVAL},
		{"/net/ipv4/ip_forward", "1", unix.EINVAL},
		{"", "1", unix.EINVAL},
		{"net/ipv4/conf/gone/forwarding", "1", unix.ENOENT},
	} {
		err := w.sysctls.Write(t.Context(), map[kernel.Sysctl]string{tt.key: tt.value}, nil)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s = %s: %v, want %v", tt.key, tt.value, err, tt.want)
		}
	}
}
