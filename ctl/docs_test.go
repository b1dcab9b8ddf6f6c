package ctl

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	v1 "cairn.network/cairn/api/v1"
)

// TestDocumentedResources checks that every example in the manual is valid.
func TestDocumentedResources(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "resources.md"))
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(text, -1) {
		objects, err := v1.Decode(block[1])
		if err != nil {
			t.Errorf("%s\n%v", block[1], err)
		}
		for _, o := range objects {
			kinds[v1.KindOf(o)] = true
			if err := v1.Check(o); err != nil {
				t.Error(err)
			}
		}
	}
	for _, k := range v1.Kinds() {
		if !agentWritten(k.Name) && !kinds[k.Name] {
			t.Errorf("there is no example of %s", k.Name)
		}
	}
}
