//go:build linux

package linux

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

func TestMissingCapabilities(t *testing.T) {
	const admin, bind = uint64(1) << unix.CAP_NET_ADMIN, uint64(1) << unix.CAP_NET_BIND_SERVICE
	for _, tt := range []struct {
		name      string
		effective uint64
		firstFree int
		ports     []int
		want      string // in the error; "" for none
	}{
		{"all", admin | bind, 1024, []int{179}, ""},
		{"none", 0, 1024, []int{179}, "CAP_NET_ADMIN (to set links and routes) and CAP_NET_BIND_SERVICE (to listen on port 179)"},
		{"not admin", bind, 1024, []int{179}, "CAP_NET_ADMIN"},
		{"admin is enough without ports", admin, 1024, nil, ""},
		{"port needs bind", admin, 1024, []int{1179, 179}, "CAP_NET_BIND_SERVICE"},
		{"last port that needs it", admin, 1024, []int{1023}, "port 1023"},
		{"first free port", admin, 1024, []int{1024}, ""},
		{"sysctl frees it", admin, 179, []int{179}, ""},
		{"any port", admin, 1024, []int{0}, ""},
	} {
		err := missing(tt.effective, tt.firstFree, tt.ports)
		switch {
		case tt.want == "" && err != nil, tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		case err != nil && (!errors.Is(err, kernel.ErrPermission) || strings.Contains(err.Error(), "\n")):
			t.Errorf("%s: %q is not one line of ErrPermission", tt.name, err)
		}
	}
}

// TestWithoutCapabilities drops this thread's capabilities: the check names what
// is missing, and what needs it says so.
func TestWithoutCapabilities(t *testing.T) {
	if err := CheckCapabilities(179); err != nil {
		t.Fatalf("with all capabilities: %v", err)
	}
	w := newWorld(t)
	w.AddLink(t, "east")
	result := make(chan error, 2)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := unix.Setns(int(w.netns.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- err
			result <- err
			return
		}
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			result <- err
			result <- err
			return
		}
		result <- CheckCapabilities(179)
		k, r := kernel.HostRoute(testAttachment("", "").IPv4), kernel.Route{Hops: kernel.Hops(kernel.NextHop{Link: "east"})}
		result <- NewRoutes().Write(t.Context(), map[kernel.RouteKey]kernel.Route{k: r}, nil)
	}()
	if err := <-result; err == nil || !strings.Contains(err.Error(), "CAP_NET_ADMIN") || !strings.Contains(err.Error(), "CAP_NET_BIND_SERVICE") {
		t.Errorf("CheckCapabilities: %v", err)
	}
	var keyErr *kernel.KeyError[kernel.RouteKey]
	if err := <-result; !errors.Is(err, kernel.ErrPermission) || !errors.As(err, &keyErr) {
		t.Errorf("Write: %v, want a KeyError of ErrPermission", err)
	}
}
