package probe_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"cairn.network/cairn/lab/fabric"
	"cairn.network/cairn/lab/netns"
	"cairn.network/cairn/lab/probe"
)

// eagerVariable makes the test's program an eager client of a protocol and address, as
// a process of its own is: whole in one namespace.
const eagerVariable = "CAIRN_TEST_EAGER"

func TestMain(m *testing.M) {
	if of := os.Getenv(eagerVariable); of != "" {
		if err := eager(strings.Fields(of)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// eager says that it begins, tries until standard input ends, and prints what became of it.
func eager(of []string) error {
	e, err := probe.ParseExchange(of[0], of[1])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	fmt.Println("begun")
	return json.NewEncoder(os.Stdout).Encode(e.Eager(ctx))
}

// TestEager holds that an eager row waits for an address and begins at once when there
// is one.
func TestEager(t *testing.T) {
	dir, a, b, _ := hosts(t)
	path := fabric.Path(dir, "a")
	for i, dst := range b {
		for _, proto := range []probe.Protocol{probe.TCP, probe.UDP} {
			t.Run(string(proto)+" "+dst.String(), func(t *testing.T) {
				e := probe.Exchange{Netns: path, Protocol: proto, Addr: netip.AddrPortFrom(dst, probe.Port)}
				answered(t, e)
				ip := func(args ...string) {
					t.Helper()
					if err := netns.Do(path, exec.Command("ip", args...).Run); err != nil {
						t.Fatalf("ip %v: %v", args, err)
					}
				}
				family, own := "-4", a[i].String()+"/24"
				if dst.Is6() {
					family, own = "-6", a[i].String()+"/64"
				}
				// IPv6 would do with a link-local address, and one of lo where there is a route.
				ip(family, "addr", "flush", "dev", "eth0")
				ip(family, "route", "flush", "dev", "eth0")
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), eagerVariable+"="+e.String())
				var errs strings.Builder
				cmd.Stderr = &errs
				in, err := cmd.StdinPipe()
				if err != nil {
					t.Fatal(err)
				}
				pipe, err := cmd.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				out := bufio.NewReader(pipe)
				if err := netns.Do(path, cmd.Start); err != nil {
					t.Fatal(err)
				}
				if _, err := out.ReadString('\n'); err != nil {
					t.Fatalf("it did not begin: %v: %s", err, errs.String())
				}
				for range 20 { // in which it must come to it as well
					if _, err := e.Try(t.Context()); err == nil || errors.Is(err, probe.ErrNoAnswer) || errors.Is(err, probe.ErrRefused) {
						t.Fatalf("without an address: %v", err)
					}
				}
				add := []string{family, "addr", "add", own, "dev", "eth0"}
				if dst.Is6() {
					add = append(add, "nodad")
				}
				ip(add...)
				for range 20 {
					answered(t, e)
				}
				in.Close()
				var got probe.Tally
				if err := errors.Join(json.NewDecoder(out).Decode(&got), cmd.Wait()); err != nil {
					t.Fatalf("%v: %s", err, errs.String())
				}
				if err := got.Meets(probe.ExpectUnrefused); err != nil {
					t.Error(err)
				}
				if got.Early.Number == 0 {
					t.Errorf("it did not try before there was an address: %s", got)
				}
			})
		}
	}
}
