//go:build linux

package linux

import (
	"errors"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// TestOwnChangesAreNotTold hears what the kernel tells about changes by this
// process and by others.
func TestOwnChangesAreNotTold(t *testing.T) {
	w := newRulesWorld(t)
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(w.netns.Fd()), Groups: rulesGroup, MessageBufferSize: receiveBuffer})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var told transactionTold
	// heard returns whether the next transaction is another's in our table.
	heard := func() bool {
		for {
			messages, err := conn.Receive()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range messages {
				changed := told.hear(m)
				if m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
					return changed
				}
			}
		}
	}
	set := map[string]kernel.Set{"nodes4": {}}
	chain := map[string]kernel.Chain{"it": {Hook: kernel.HookInput, Type: kernel.ChainFilter, Rules: kernel.RulesOf(kernel.Rule{Verdict: kernel.Accept})}}
	element := map[kernel.Element]struct{}{kerneltest.Member("nodes4", "192.0.2.1"): {}}
	for _, tt := range []struct {
		name   string
		do     func()
		others bool
	}{
		{"own set", func() { kerneltest.Put(t, w.sets, set) }, false},
		{"own element", func() { kerneltest.Put(t, w.elements, element) }, false},
		{"own chain", func() { kerneltest.Put(t, w.chains, chain) }, false},
		{"own chain again", func() { kerneltest.Put(t, w.chains, chain) }, false},
		{"their rule", func() { w.nft(t, "add rule inet cairn it drop") }, true},
		{"their element", func() { w.nft(t, "delete element inet cairn nodes4 { 192.0.2.1 }") }, true},
		{"their sleep", func() { w.nft(t, "table inet cairn { flags dormant; }") }, true},
		{"their own table", func() { w.nft(t, "table inet other { set nodes4 { type ipv4_addr; }\nchain it { accept; }\n}") }, false},
		{"their own table of our name", func() { w.nft(t, "table ip cairn { chain it { accept; }\n}") }, false},
		{"all flushed", func() { w.nft(t, "flush ruleset") }, true},
	} {
		tt.do()
		if got := heard(); got != tt.others {
			t.Errorf("%s: told of another's change: %t, want %t", tt.name, got, tt.others)
		}
	}
}

// TestRulesOverrun loses notifications: something may have been changed.
func TestRulesOverrun(t *testing.T) {
	w := newRulesWorld(t)
	changed, ended := make(chan struct{}, 1), make(chan error, 1)
	block := make(chan struct{})
	stop, err := config{netns: int(w.netns.Fd())}.watchRules(1, func() {
		select {
		case changed <- struct{}{}:
		default:
		}
		<-block
	}, func(err error) { ended <- err })
	if err != nil {
		t.Fatal(err)
	}
	w.nft(t, "add table inet cairn")
	<-changed // and blocked
	kerneltest.Put(t, w.sets, map[string]kernel.Set{"nodes4": {}})
	elements := make(map[kernel.Element]struct{})
	for _, e := range manyElements("nodes4", manyKeys-1) {
		elements[e] = struct{}{}
	}
	kerneltest.Put(t, w.elements, elements)
	close(block)
	<-changed
	stop()
	if err := <-ended; err == nil || errors.Is(err, unix.ENOBUFS) {
		t.Errorf("ended with %v, want the end of the socket", err)
	}
}

// TestManyChangesAreNotHeard writes so much that nobody listens meanwhile: another hand
// is heard of all the same.
func TestManyChangesAreNotHeard(t *testing.T) {
	w := newRulesWorld(t)
	where := config{netns: int(w.netns.Fd())}
	changed, ended := make(chan struct{}, 100), make(chan error, 1)
	stop, err := where.watchRules(watchBuffer, func() { changed <- struct{}{} }, func(err error) { ended <- err })
	if err != nil {
		t.Fatal(err)
	}
	kerneltest.Put(t, w.sets, map[string]kernel.Set{"nodes4": {}})
	kerneltest.Put(t, w.elements, elementMap(manyElements("nodes4", 5*manyKeys)))
	w.nft(t, "add element inet cairn nodes4 { 192.0.2.1 }")
	<-changed
	driver := w.elements.(ruleElements).rulesDriver
	hushed := func(do func(conn *rulesConn)) {
		t.Helper()
		err := driver.withRules("test", func(conn *rulesConn) error {
			if err := conn.hold(t.Context()); err != nil {
				return err
			}
			listen, err := conn.hush(t.Context())
			if err != nil {
				return err
			}
			do(conn)
			listen()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	own := func(conn *rulesConn, name string) {
		units := []unit[string]{unitOf("set", name, newSet(name, kernel.Set{}, 1))}
		if failed, err := commit(t.Context(), conn, units); len(failed) > 0 || err != nil {
			t.Fatal(failed, err)
		}
	}
	hushed(func(conn *rulesConn) { own(conn, "one") })
	hushed(func(conn *rulesConn) {
		own(conn, "two")
		w.nft(t, "delete element inet cairn nodes4 { 192.0.2.1 }")
		own(conn, "three")
	})
	<-changed // the other hand's, in between
	w.nft(t, "add element inet cairn nodes4 { 192.0.2.1 }")
	<-changed // and it is heard again
	stop()
	<-ended
	if len(changed) > 0 {
		t.Errorf("told of %d changes more than there were", len(changed))
	}
	if len(hearing.by[where]) > 0 {
		t.Error("who has stopped still counts as listening")
	}
}
