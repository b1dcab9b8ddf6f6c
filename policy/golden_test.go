package policy

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/kernel"
)

// always is the golden file of a node without policies: the others leave out what is
// in it.
const always = "always"

// settings returns what an AgentConfiguration says, if there is one.
func settings(objects []v1.Object) Settings {
	var config *v1.AgentConfiguration
	for _, o := range objects {
		if c, ok := o.(*v1.AgentConfiguration); ok {
			config = c
		}
	}
	e := v1.Effective(config, nil)
	s := Settings{
		LogRate: uint32(e.LogActionRateLimit), LogBurst: uint32(e.LogActionBurst), PodsToHost: Allow, EndRefused: e.PolicyChange == v1.PolicyTerminate,
		FailSafe: [2][]FailSafe{Ingress: FromFailsafePorts(e.FailsafeInbound), Egress: FromFailsafePorts(e.FailsafeOutbound)},
	}
	if e.DefaultEndpointToHostAction == v1.EndpointToHostDrop {
		s.PodsToHost = Deny
	}
	return s
}

// rulesOf compiles resources for the node n1, which has the links eth0, with an
// address, and eth1.
func rulesOf(t *testing.T, text []byte) Output {
	t.Helper()
	objects, err := v1.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	w, _ := NewWorld(objects...)
	s := settings(objects)
	w.FailSafe = s.FailSafe
	return Compile(w, "n1", map[string][]netip.Addr{"eth0": {netip.MustParseAddr("192.0.2.11")}, "eth1": nil}, s)
}

// blocks returns the sets, maps and chains of a table as text.
func blocks(o Output) []string {
	text := kernel.RulesText(o.Sets.All(), o.Elements.All(), o.Chains.All())
	_, text, _ = strings.Cut(text, "{\n")
	return strings.SplitAfter(strings.TrimSuffix(text, "}\n"), "\n\t}\n")
}

// TestCompile shows what each archive's resources.yaml is compiled to. With -update it
// writes that anew. What is there without policies is in always.txtar only.
func TestCompile(t *testing.T) {
	files, err := filepath.Glob("testdata/compile/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	common := blocks(rulesOf(t, nil))
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(a.Files) == 1 {
				a.Files = append(a.Files, txtar.File{Name: "rules.nft"})
			}
			got := blocks(rulesOf(t, a.Files[0].Data))
			if !strings.Contains(file, always) {
				got = slices.DeleteFunc(got, func(b string) bool {
					return slices.ContainsFunc(common, func(c string) bool { return trimmed(b) == trimmed(c) })
				})
			}
			text := "table inet cairn {\n" + strings.TrimPrefix(strings.Join(got, ""), "\n") + "}\n"
			if *update {
				a.Files[1].Data = []byte(text)
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(a.Files[1].Data), text); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func trimmed(block string) string { return strings.TrimLeft(block, "\n") }
