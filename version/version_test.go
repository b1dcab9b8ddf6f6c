package version

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestString(t *testing.T) {
	for name, tt := range map[string]struct {
		build Build
		want  string
	}{
		"no commit": {Build{Version: "v1", Go: "go1.26", Platform: "linux/amd64"}, "v1 go1.26 linux/amd64"},
		"commit":    {Build{Version: "v1", Commit: "0123456789abcdef", Go: "go1.26", Platform: "linux/arm64"}, "v1 (commit 0123456789ab) go1.26 linux/arm64"},
		"modified":  {Build{Version: "v1", Commit: "0123", Modified: true, Go: "go1.26", Platform: "linux/arm64"}, "v1 (commit 0123, modified) go1.26 linux/arm64"},
	} {
		if got := tt.build.String(); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func TestCurrent(t *testing.T) {
	b := Current()
	if b.Go != runtime.Version() || b.Platform != runtime.GOOS+"/"+runtime.GOARCH || b.Version == "" {
		t.Errorf("got %+v", b)
	}
}

// TestLinked builds a program as a release is built.
func TestLinked(t *testing.T) {
	dir := t.TempDir()
	main := filepath.Join(dir, "main.go")
	text := "package main\n\nimport \"cairn.network/cairn/version\"\n\nfunc main() { print(version.Current().Version) }\n"
	if err := os.WriteFile(main, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "run", "-ldflags=-X cairn.network/cairn/version.Version=v9.8.7", main).CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != "v9.8.7" {
		t.Errorf("got %q, %v", got, err)
	}
}
