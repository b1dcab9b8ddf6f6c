//go:build linux

// Package needs says what a test needs of the kernel that not every kernel has.
//
// It guarantees that such a test is either run or skipped with a reason, and that
// it is never skipped where scripts/vmtest runs it: in a VM whose kernel has it
// all. scripts/vmtest finds tests by their names: those that end in VM.
package needs

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link skips the test unless the kernel can make links of the kind ("ipip",
// "wireguard": ip-link(8), TYPES). In the VM it fails the test instead.
func Link(t testing.TB, kind string) {
	t.Helper()
	top, _, _ := strings.Cut(t.Name(), "/")
	if !strings.HasSuffix(top, "VM") {
		t.Fatalf("%s needs %s, but its name does not end in VM: scripts/vmtest would not run it", top, kind)
	}
	has, err := makes(kind)
	switch {
	case err != nil:
		t.Fatalf("make a link of kind %s (root is needed): %v", kind, err)
	case has:
	case os.Getenv("CAIRN_VM") != "":
		t.Fatalf("the VM's kernel has no links of kind %s", kind)
	default:
		t.Skipf("this kernel has no links of kind %s; scripts/vmtest runs the test in a VM", kind)
	}
}

// NoLink skips the test if the kernel can make links of the kind: it shows how
// things are on kernels that can't.
func NoLink(t testing.TB, kind string) {
	t.Helper()
	has, err := makes(kind)
	switch {
	case err != nil:
		t.Fatalf("make a link of kind %s (root is needed): %v", kind, err)
	case has:
		t.Skipf("this kernel has links of kind %s, and the test is about those that have none", kind)
	}
}

// makes tells whether the kernel makes links of the kind, by making one in a
// network namespace that goes away with the thread.
func makes(kind string) (has bool, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "needed"
		err = netlink.LinkAdd(&netlink.GenericLink{LinkAttrs: attrs, LinkType: kind})
		switch {
		case err == nil, errors.Is(err, unix.EEXIST): // tunl0, the link without parameters, comes by itself
			has, err = true, nil
		case errors.Is(err, unix.EOPNOTSUPP):
			err = nil
		}
	}()
	<-done
	return has, err
}
