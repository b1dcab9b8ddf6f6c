package netns_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"cairn.network/cairn/lab/netns"
)

// id returns the identity of the calling thread's namespace.
func id(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestNewDoDelete(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if netns.Exists(path) {
		t.Fatal("exists before it was made")
	}
	var ran bool
	if err := netns.New(path, func() error { ran = true; return nil }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Delete(path) })
	if !ran || !netns.Exists(path) {
		t.Fatalf("setup ran: %t, exists: %t", ran, netns.Exists(path))
	}
	if err := netns.New(path, nil); !errors.Is(err, os.ErrExist) {
		t.Errorf("the second New of one path: %v, want ErrExist", err)
	}

	host := id(t, "/proc/self/ns/net")
	var links []net.Interface
	err := netns.Do(path, func() error {
		if got, want := id(t, "/proc/thread-self/ns/net"), id(t, path); got != want || got == host {
			t.Errorf("inside: namespace %d, want %d, not the host's %d", got, want, host)
		}
		var err error
		links, err = net.Interfaces()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(links) != 1 || links[0].Name != "lo" {
		t.Errorf("a new namespace has %v, want lo alone", links)
	}

	for range 2 { // the second time there is nothing left to do
		if err := netns.Delete(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Delete: %v, want no file", err)
	}
	if err := netns.Do(path, func() error { t.Error("ran in a deleted namespace"); return nil }); err == nil {
		t.Error("no error for a deleted namespace")
	}
}

func TestNewFailsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	want := errors.New("setup failed")
	if err := netns.New(path, func() error { return want }); !errors.Is(err, want) {
		t.Errorf("New: %v, want %v", err, want)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after a failed New: %v, want no file", err)
	}
}

func TestDeleteAll(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := netns.New(filepath.Join(dir, name), nil); err != nil {
			t.Fatal(err)
		}
	}
	// What a crash between making the file and mounting leaves behind.
	if err := os.WriteFile(filepath.Join(dir, "half"), nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := netns.DeleteAll(dir); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := netns.DeleteAll(filepath.Join(dir, "none")); err != nil {
		t.Errorf("a missing folder: %v", err)
	}
}
