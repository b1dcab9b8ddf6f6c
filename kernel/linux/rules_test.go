//go:build linux

package linux

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// rulesWorld is a network namespace with the driver of nftables in it.
type rulesWorld struct {
	kernel.Watcher
	sets     kernel.Table[string, kernel.Set]
	elements kernel.Table[kernel.Element, struct{}]
	chains   kernel.Table[string, kernel.Chain]
	netns    *os.File
}

func newRulesWorld(t testing.TB) *rulesWorld {
	w := &rulesWorld{netns: newNetns(t)}
	in := In(int(w.netns.Fd()))
	w.Watcher = NewWatcher(in)
	w.sets, w.elements, w.chains = NewRules(in)
	return w
}

func (w *rulesWorld) Sets() kernel.Table[string, kernel.Set]           { return w.sets }
func (w *rulesWorld) Elements() kernel.Table[kernel.Element, struct{}] { return w.elements }
func (w *rulesWorld) Chains() kernel.Table[string, kernel.Chain]       { return w.chains }

// nft runs nft(8) in the world and returns what it prints.
func (w *rulesWorld) nft(t testing.TB, script string) string {
	t.Helper()
	var out []byte
	err := config{netns: int(w.netns.Fd())}.in(func() (err error) {
		cmd := exec.Command("nft", "-p", "-y", "-s", "-f", "-")
		cmd.Stdin = strings.NewReader(script)
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("nft (Debian package nftables): %v\n%s\n%s", err, script, out)
	}
	return string(out)
}

func (w *rulesWorld) AddSet(t testing.TB, name string, s kernel.Set) {
	t.Helper()
	w.nft(t, kernel.RulesText(maps.All(map[string]kernel.Set{name: s}), none[kernel.Element, struct{}], none[string, kernel.Chain]))
}

func none[K, V any](func(K, V) bool) {}

func (w *rulesWorld) AddElement(t testing.TB, e kernel.Element) {
	t.Helper()
	w.element(t, "add", e.Set, strings.TrimSuffix(e.String(), " in "+e.Set))
}

func (w *rulesWorld) DropElement(t testing.TB, e kernel.Element) {
	t.Helper()
	w.element(t, "delete", e.Set, strings.TrimSuffix(e.String(), " in "+e.Set))
}

func (w *rulesWorld) element(t testing.TB, verb, set, text string) {
	t.Helper()
	w.nft(t, fmt.Sprintf("%s element inet cairn %s { %s }", verb, set, text))
}

func (w *rulesWorld) AddChain(t testing.TB, key string, c kernel.Chain) {
	t.Helper()
	if verdicts, link, ok := kernel.ParseEntryKey(key); ok {
		w.element(t, "add", verdicts, fmt.Sprintf("%q : %s", link, cmp.Or(c.Other, c.String())))
		return
	}
	w.nft(t, kernel.RulesText(none[string, kernel.Set], none[kernel.Element, struct{}], maps.All(map[string]kernel.Chain{key: c})))
}

func (w *rulesWorld) DropChain(t testing.TB, key string) {
	t.Helper()
	if verdicts, link, ok := kernel.ParseEntryKey(key); ok {
		w.element(t, "delete", verdicts, fmt.Sprintf("%q", link))
		return
	}
	w.nft(t, "delete chain inet cairn "+key)
}

func (w *rulesWorld) FlushRuleset(t testing.TB) {
	t.Helper()
	w.nft(t, "flush ruleset")
}

func TestRulesPassTheSuite(t *testing.T) {
	kerneltest.RunRules(t, func(t *testing.T) kerneltest.RulesWorld { return newRulesWorld(t) })
}

// TestRulesWithoutCapability reads and writes without CAP_NET_ADMIN: it is nobody's
// fault in particular.
func TestRulesWithoutCapability(t *testing.T) {
	w := newRulesWorld(t)
	kerneltest.Put(t, w.sets, map[string]kernel.Set{"nodes4": {}})
	within(t, w.netns, func() {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var all, fewer [2]unix.CapUserData
		must(t, unix.Capget(&header, &all[0]))
		fewer = all
		fewer[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		must(t, unix.Capset(&header, &fewer[0]))
		defer unix.Capset(&header, &all[0])
		sets, elements, chains := NewRules()
		_, err := sets.Read(t.Context())
		for what, err := range map[string]error{
			"read":           err,
			"write sets":     sets.Write(t.Context(), map[string]kernel.Set{"a": {}, "b": {}}, nil),
			"delete a set":   sets.Write(t.Context(), nil, []string{"nodes4"}),
			"write elements": elements.Write(t.Context(), elementMap(manyElements("nodes4", 1000)), nil),
			"write chains":   chains.Write(t.Context(), map[string]kernel.Chain{"it": {}}, nil),
		} {
			if !errors.Is(err, kernel.ErrPermission) {
				t.Errorf("%s: %v, want ErrPermission", what, err)
			}
			if k, ok := errors.AsType[*kernel.KeyError[string]](err); ok {
				t.Errorf("%s: %v blames a key", what, k)
			}
		}
	})
	kerneltest.WantRules(t, w, map[string]kernel.Set{"nodes4": {}}, nil, nil)
}

// TestSetOfAnotherKind has another hand put a set of another kind in the place of one
// that elements were written to.
func TestSetOfAnotherKind(t *testing.T) {
	w := newRulesWorld(t)
	kerneltest.Put(t, w.sets, map[string]kernel.Set{"one": {}, "other": {}})
	put := func(set, prefix string) {
		t.Helper()
		kerneltest.Put(t, w.elements, map[kernel.Element]struct{}{{Set: set, Prefix: netip.MustParsePrefix(prefix)}: {}})
	}
	put("one", "192.0.2.1/32")
	put("other", "192.0.2.1/32")
	w.nft(t, "delete set inet cairn one; add set inet cairn one { type ipv6_addr; }")
	put("other", "192.0.2.2/32")
	put("one", "2001:db8::1/128")
	kerneltest.Put(t, w.sets, map[string]kernel.Set{"other": {IPv6: true}})
	put("other", "2001:db8::1/128")
}

// TestHolderDeletedByAnotherHand deletes the set that holds a shared one: nobody knows how
// to make it but who puts elements in.
func TestHolderDeletedByAnotherHand(t *testing.T) {
	w := newRulesWorld(t)
	name := kernel.SharedName(false, kernel.SharedID{0xff})
	sets, e := map[string]kernel.Set{name: {Shared: true}}, kerneltest.Member(name, "192.0.2.1")
	kerneltest.Put(t, w.sets, sets)
	for range 2 {
		kerneltest.Put(t, w.elements, elementMap([]kernel.Element{e}))
		kerneltest.WantRules(t, w, sets, []kernel.Element{e}, nil)
		w.nft(t, "delete set inet cairn "+holderOf(name))
		kerneltest.WantRules(t, w, sets, nil, nil)
	}
}
