//go:build linux

package linux

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// goldenFiles are what policies are compiled to, and always is the one that holds what
// the others leave out.
const (
	goldenFiles = "../../policy/testdata/compile"
	always      = "always.txtar"
)

// blocksOf returns the sets, maps and chains in a file's table, by their first lines.
func blocksOf(t *testing.T, file string) map[string]string {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join(goldenFiles, file))
	if err != nil {
		t.Fatal(err)
	}
	text, found := strings.CutPrefix(string(a.Files[1].Data), "table inet cairn {\n")
	if !found {
		t.Fatalf("%s begins with another table", file)
	}
	blocks := make(map[string]string)
	for b := range strings.SplitSeq(strings.TrimSuffix(text, "}\n"), "\n\n") {
		head, body, _ := strings.Cut(strings.TrimSuffix(b, "\n"), "\n")
		blocks[head] = body
	}
	return blocks
}

// TestCompiledPolicies has nft(8) load what the golden files of policies say, and list
// that: what a person reads there is what the kernel has.
func TestCompiledPolicies(t *testing.T) {
	files, err := os.ReadDir(goldenFiles)
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(f.Name(), ".txtar"), func(t *testing.T) {
			blocks := blocksOf(t, always)
			maps.Copy(blocks, blocksOf(t, f.Name()))
			var text strings.Builder
			text.WriteString("table inet cairn {\n")
			for _, chains := range []bool{false, true} { // what they ask for comes first
				for _, head := range slices.Sorted(maps.Keys(blocks)) {
					if strings.HasPrefix(head, "\tchain ") == chains {
						text.WriteString(head + "\n" + blocks[head] + "\n\n")
					}
				}
			}
			text.WriteString("}\n")
			w := newRulesWorld(t)
			w.nft(t, text.String())
			if diff := cmp.Diff(ordered(text.String()), ordered(w.nft(t, "list table inet cairn"))); diff != "" {
				t.Errorf("(-written +listed):\n%s", diff)
			}
		})
	}
}

// ordered returns the listing of a table with its blocks and elements in order: that of
// nft(8) is the kernel's.
func ordered(text string) string {
	return regexp.MustCompile(`elements = \{ (.*?) \}`).ReplaceAllStringFunc(listing(text), func(elements string) string {
		list := strings.Split(strings.TrimSuffix(strings.TrimPrefix(elements, "elements = { "), " }"), ", ")
		slices.Sort(list)
		return "elements = { " + strings.Join(list, ", ") + " }"
	})
}
