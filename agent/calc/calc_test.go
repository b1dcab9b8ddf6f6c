package calc

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what comes out into testdata")

// TestGolden runs the cases of testdata. Each is the inputs, as readCase reads
// them, and the State that comes out, as text. Sysctls and rules are left out
// unless the comment names them.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("find cases: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := Desired(readCase(t, a))
			if !strings.Contains(string(a.Comment), "sysctls") {
				s.Sysctls = State{}.Sysctls
			}
			if !strings.Contains(string(a.Comment), "rules") {
				s.Sets, s.Elements, s.Chains = State{}.Sets, State{}.Elements, State{}.Chains
			}
			if *update {
				setFile(a, "want", s.String())
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want := a.Files[len(a.Files)-1]
			if diff := cmp.Diff(string(want.Data), s.String()); want.Name != "want" || diff != "" {
				t.Errorf("state (-want +got):\n%s", diff)
			}
		})
	}
}

func setFile(a *txtar.Archive, name, text string) {
	for i, f := range a.Files {
		if f.Name == name {
			a.Files = append(a.Files[:i], a.Files[i+1:]...)
			break
		}
	}
	a.Files = append(a.Files, txtar.File{Name: name, Data: []byte(text)})
}
