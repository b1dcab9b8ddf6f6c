package policy

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/selector"
)

var update = flag.Bool("update", false, "write the golden files anew")

// dump returns what becomes of resources, as golden files hold it.
func dump(t *testing.T, text []byte) string {
	t.Helper()
	objects, err := v1.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	before := make([]v1.Object, len(objects))
	for i, o := range objects {
		before[i] = o.DeepCopyObject().(v1.Object)
	}
	w, issues := NewWorld(objects...)
	if diff := cmp.Diff(before, objects); diff != "" {
		t.Errorf("the resources were changed:\n%s", diff)
	}
	out := w.String()
	for _, i := range issues {
		out += strings.TrimRight(fmt.Sprintf("issue of %s %s", i.Object, i.Field), " ") + ": " + i.Reason + "\n"
	}
	return out
}

// TestConvert shows the internal form of what each archive's resources.yaml says.
func TestConvert(t *testing.T) {
	files, err := filepath.Glob("testdata/convert/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(a.Files) == 1 {
				a.Files = append(a.Files, txtar.File{Name: "internal"})
			}
			got := dump(t, a.Files[0].Data)
			if *update {
				a.Files[1].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(a.Files[1].Data), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestMergePorts(t *testing.T) {
	r := func(first, last uint16) Port { return Port{First: first, Last: last} }
	for name, row := range map[string]struct{ ports, want []Port }{
		"none":           {nil, nil},
		"one":            {[]Port{r(80, 80)}, []Port{r(80, 80)}},
		"twice":          {[]Port{r(80, 80), r(80, 80)}, []Port{r(80, 80)}},
		"in order":       {[]Port{r(443, 443), r(80, 80)}, []Port{r(80, 80), r(443, 443)}},
		"touching":       {[]Port{r(80, 81), r(82, 90)}, []Port{r(80, 90)}},
		"one in between": {[]Port{r(80, 81), r(83, 90)}, []Port{r(80, 81), r(83, 90)}},
		"inside":         {[]Port{r(1, 65535), r(80, 80)}, []Port{r(1, 65535)}},
		"last port":      {[]Port{r(65535, 65535), r(65534, 65535)}, []Port{r(65534, 65535)}},
		"names":          {[]Port{{Name: "b"}, r(80, 80), {Name: "a"}, {Name: "b"}}, []Port{r(80, 80), {Name: "a"}, {Name: "b"}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(row.want, mergePorts(row.ports)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestInNamespaces(t *testing.T) {
	for text, want := range map[string]string{
		"all()":               `has(projectcalico.org/namespace)`,
		"global()":            `!has(projectcalico.org/namespace)`,
		"!global()":           `has(projectcalico.org/namespace)`,
		"a == 'b'":            `has(projectcalico.org/namespace) && pcns.a == "b"`,
		"!has(a)":             `has(projectcalico.org/namespace) && !has(pcns.a)`,
		"a == 'b' || !has(c)": `has(projectcalico.org/namespace) && (pcns.a == "b" || !has(pcns.c))`,
		"global() || has(a)":  `!has(projectcalico.org/namespace) || has(pcns.a)`,
	} {
		s, err := selector.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := inNamespaces(s).String(); got != want {
			t.Errorf("%s became %s, want %s", text, got, want)
		}
	}
}

func TestPlace(t *testing.T) {
	p := &Policy{ID: ID{"NetworkPolicy", "a", "b"}, Tier: "x", Selector: selector.All(), Applies: [2]bool{true, false}, Rules: [2][]Rule{{{Action: Allow}}}}
	same, issues := Place(p, []Tier{{Name: "w"}, {Name: "x"}})
	if same != p || issues != nil {
		t.Errorf("in its tier it became %v, %v", same, issues)
	}
	got, issues := Place(p, BuiltinTiers())
	want := &Policy{ID: p.ID, Tier: "x", Selector: p.Selector, Applies: [2]bool{true, true}, Fault: `spec.tier: there is no tier "x"`}
	if diff := cmp.Diff(want.String(), got.String()); diff != "" {
		t.Errorf("without its tier (-want +got):\n%s", diff)
	}
	if len(issues) != 1 || len(p.Rules[Ingress]) != 1 {
		t.Errorf("issues %v; the policy is now %v", issues, p)
	}
}

// TestBuiltinTiers holds what users of Calico and of Kubernetes rely on.
func TestBuiltinTiers(t *testing.T) {
	want := []Tier{{"kube-admin", 1000, Pass}, {"default", 1_000_000, Deny}, {"kube-baseline", 10_000_000, Pass}}
	if diff := cmp.Diff(want, BuiltinTiers()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// FuzzConvert looks for resources that stop the conversion, or that come out of it
// as something that can't be enforced without that being told.
func FuzzConvert(f *testing.F) {
	examples, err := os.ReadFile(filepath.Join("..", "api", "v1", "testdata", "examples.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	for doc := range strings.SplitSeq(string(examples), "---\n") {
		f.Add([]byte(doc))
	}
	files, _ := filepath.Glob("testdata/convert/*.txtar")
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for doc := range strings.SplitSeq(string(a.Files[0].Data), "---\n") {
			f.Add([]byte(doc))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, err := v1.Decode(data)
		if err != nil {
			return
		}
		for _, o := range objects {
			o.Validate()
		}
		w, issues := NewWorld(objects...)
		if len(w.String()) == 0 {
			t.Error("a world without tiers")
		}
		faulty := 0
		for _, p := range w.Policies {
			if _, err := selector.Parse(p.Selector.String()); err != nil && !strings.Contains(err.Error(), "parentheses") {
				t.Errorf("%s selects by %s: %v", p.ID, p.Selector, err)
			}
			if p.Fault != "" {
				faulty++
			}
			for _, dir := range []Direction{Ingress, Egress} {
				for _, r := range p.Rules[dir] {
					checkRule(t, p, r)
				}
			}
		}
		if len(issues) < faulty {
			t.Errorf("%d policies have faults, %d issues", faulty, len(issues))
		}
	})
}

// checkRule checks what everybody relies on who reads rules.
func checkRule(t *testing.T, p *Policy, r Rule) {
	for _, peer := range []Peer{r.Source, r.Destination} {
		for _, n := range append(peer.Nets, peer.NotNets...) {
			if !n.IsValid() || n != n.Masked() || n.Addr().Is4In6() {
				t.Errorf("%s: bad range %v in %v", p.ID, n, r)
			}
		}
		for _, port := range append(peer.Ports, peer.NotPorts...) {
			if port.Name == "" && (port.First == 0 || port.First > port.Last) || !v1.Protocol(fmt.Sprint(r.Protocol)).HasPorts() {
				t.Errorf("%s: bad port %v in %v", p.ID, port, r)
			}
		}
	}
	if (r.ICMP != nil || r.NotICMP != nil) && r.Protocol != 1 && r.Protocol != 58 || p.Fault != "" {
		t.Errorf("%s: bad rule %v", p.ID, r)
	}
}
