package cni

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
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
