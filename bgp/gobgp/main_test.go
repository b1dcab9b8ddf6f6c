package gobgp_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"cairn.network/cairn/bgp"
	"cairn.network/cairn/bgp/bgptest"
	"cairn.network/cairn/bgp/gobgp"
)

// inside tells the test binary that it runs in its own network namespace.
const inside = "CAIRN_GOBGP_TEST_INSIDE"

// TestMain runs the tests in a network namespace of their own, whose loopback
// device has the addresses of all hosts.
func TestMain(m *testing.M) {
	if os.Getenv(childOf) != "" {
		if err := runChild(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	if os.Getenv(inside) != "" {
		if err := addAddresses(); err != nil {
			fmt.Fprintln(os.Stderr, "prepare the network namespace:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1", "GORACE=suppressions=testdata/race.txt "+os.Getenv("GORACE"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "run in a network namespace:", err)
		os.Exit(1)
	}
}

func addAddresses() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, h := range bgptest.Hosts() {
		for _, a := range []netip.Addr{h.V4(), h.V6()} {
			addr := &netlink.Addr{
				IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())},
				Flags: syscall.IFA_F_NODAD,
			}
			if err := netlink.AddrReplace(lo, addr); err != nil {
				return fmt.Errorf("add %v: %w", a, err)
			}
		}
	}
	return nil
}

func logger(t *testing.T) *slog.Logger {
	level := slog.LevelWarn
	if os.Getenv("CAIRN_TEST_DEBUG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level}))
}

// world runs all hosts in this process. A killed speaker stops as if restarting:
// to its peers a closed connection is a closed connection.
func world(t *testing.T) bgptest.World {
	return bgptest.World{
		Start: func(bgptest.Host) bgp.Speaker {
			s := gobgp.New(logger(t))
			t.Cleanup(func() {
				if err := s.Stop(context.Background(), false); err != nil {
					t.Errorf("stop: %v", err)
				}
			})
			return s
		},
		Kill: func(s bgp.Speaker) {
			if err := s.Stop(t.Context(), true); err != nil {
				t.Errorf("stop: %v", err)
			}
		},
		Cut: func(a, b bgptest.Host) {
			nft(t, fmt.Sprintf(`table inet cut {
				chain output {
					type filter hook output priority 0
					ip saddr { %[1]v, %[2]v } ip daddr { %[1]v, %[2]v } drop
					ip6 saddr { %[3]v, %[4]v } ip6 daddr { %[3]v, %[4]v } drop
				}
			}`, a.V4(), b.V4(), a.V6(), b.V6()))
		},
		Heal: func(bgptest.Host, bgptest.Host) { nft(t, "delete table inet cut") },
		Occupy: func(h bgptest.Host) func() {
			l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(h.V4(), bgptest.Port)))
			if err != nil {
				t.Fatal(err)
			}
			return func() { l.Close() }
		},
	}
}

// nft changes the namespace's packet filter.
func nft(t *testing.T, rules string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft (Debian's package nftables): %v: %s", err, out)
	}
}

func TestSpeaker(t *testing.T) {
	bgptest.Run(t, func(t *testing.T, test func(*testing.T, bgptest.World)) { test(t, world(t)) })
}
