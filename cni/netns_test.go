package cni

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// otherNetns makes a network namespace and returns a path to it, good for any
// process as long as the test runs.
func otherNetns(t testing.TB) string {
	t.Helper()
	type made struct {
		file *os.File
		err  error
	}
	result := make(chan made)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		var m made
		if m.err = unix.Unshare(unix.CLONE_NEWNET); m.err == nil {
			m.file, m.err = os.Open("/proc/thread-self/ns/net")
		}
		result <- m
	}()
	m := <-result
	if m.err != nil {
		t.Fatalf("make a network namespace (root is needed): %v", m.err)
	}
	t.Cleanup(func() { m.file.Close() })
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), m.file.Fd())
}

// within runs f on a thread that is in a network namespace, and so are the
// processes that f starts.
func within(t testing.TB, netns string, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	there, err := os.Open(netns)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err) // the thread must not serve other goroutines
		}
	}()
	f()
}

// addrs returns the global addresses of a link in a network namespace, nil if
// there is no such link.
func addrs(t testing.TB, netns, link string) []string {
	t.Helper()
	var found []string
	within(t, netns, func() {
		i, err := net.InterfaceByName(link)
		if err != nil {
			return
		}
		all, err := i.Addrs()
		if err != nil {
			t.Error(err)
		}
		for _, a := range all {
			if ip := a.(*net.IPNet); ip.IP.IsGlobalUnicast() {
				found = append(found, ip.String())
			}
		}
	})
	return found
}

// podLinks returns the pods' links in a network namespace.
func podLinks(t testing.TB, netns string) []string {
	t.Helper()
	var found []string
	within(t, netns, func() {
		all, err := net.Interfaces()
		if err != nil {
			t.Error(err)
		}
		for _, i := range all {
			if strings.HasPrefix(i.Name, kernel.PodLinkPrefix) {
				found = append(found, i.Name)
			}
		}
	})
	return found
}
