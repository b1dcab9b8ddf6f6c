//go:build linux

package linux

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

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
