// Package netns makes, enters and removes network namespaces that are held by a
// bind mount in a folder of the caller's.
//
// It guarantees that a namespace lives as long as its file, whatever process
// made it, and that no thread that entered one is used for anything else. It
// leaves what is inside a namespace to others.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// self is the calling thread's own network namespace.
const self = "/proc/thread-self/ns/net"

// New makes a network namespace, runs setup in it (if not nil) on a thread that
// is inside, and holds it by a bind mount at path, which must not exist. If
// anything fails there is neither namespace nor file.
func New(path string, setup func() error) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		if setup != nil {
			if err := setup(); err != nil {
				return err
			}
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
		if err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		f.Close()
		if err := unix.Mount(self, path, "none", unix.MS_BIND, ""); err != nil {
			return errors.Join(fmt.Errorf("hold network namespace at %s: %w", path, err), os.Remove(path))
		}
		return nil
	})
}

// Do runs f on a thread inside the namespace held at path. What f opens stays
// in that namespace, and what it starts with os/exec is born there. Goroutines
// that f starts are not inside.
func Do(path string, f func() error) error {
	return onThread(func() error {
		if err := Enter(path); err != nil {
			return err
		}
		return f()
	})
}

// Enter moves the calling thread into the namespace held at path. The caller
// must have locked its goroutine to the thread, and must not unlock it until it
// is back in its old namespace or gone.
func Enter(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer func() { _ = unix.Close(fd) }() // it was only read from
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return nil
}

// Exists says whether a namespace is held at path: a file alone is what a mount
// that was undone, or a crash between the two steps of New, leaves behind.
func Exists(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// Delete lets go of the namespace held at path and removes the file. The
// namespace ends when no process is in it. Gone already is no error.
func Delete(path string) error {
	for Exists(path) {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("let go of network namespace %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove network namespace: %w", err)
	}
	return nil
}

// DeleteAll lets go of every namespace held in a folder and removes the files.
// It goes on after a failure. A missing folder is no error.
func DeleteAll(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list network namespaces: %w", err)
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, Delete(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

// onThread runs f on a thread of its own, which ends with it: a goroutine that
// returns while locked takes its thread with it. It is never the process's main
// thread, whose namespaces are those that others see as the process's.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			done <- onThread(f) // cannot land here while this goroutine stays
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}
