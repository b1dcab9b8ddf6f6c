//go:build linux

package linux

import (
	"errors"
	"fmt"
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
		cmd := exec.Command("nft", "-p", "-y", "-f", "-")
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
	kind := "type ipv4_addr;"
	if s.IPv6 {
		kind = "type ipv6_addr;"
	}
	if s.Ranges {
		kind += " flags interval;"
	}
	w.nft(t, fmt.Sprintf("add table inet cairn\nadd set inet cairn %s { %s }", name, kind))
}

func elementText(e kernel.Element) string {
	text, _, _ := strings.Cut(e.String(), " ")
	return text
}

func (w *rulesWorld) AddElement(t testing.TB, e kernel.Element) {
	t.Helper()
	w.nft(t, fmt.Sprintf("add element inet cairn %s { %s }", e.Set, elementText(e)))
}

func (w *rulesWorld) DropElement(t testing.TB, e kernel.Element) {
	t.Helper()
	w.nft(t, fmt.Sprintf("delete element inet cairn %s { %s }", e.Set, elementText(e)))
}

func (w *rulesWorld) AddChain(t testing.TB, name string, c kernel.Chain) {
	t.Helper()
	w.nft(t, fmt.Sprintf("table inet cairn {\nchain %s {\n%s\n}\n}", name, c))
}

func (w *rulesWorld) DropChain(t testing.TB, name string) {
	t.Helper()
	w.nft(t, "delete chain inet cairn "+name)
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
