// Package e2e holds what the whole must show: real agents, the real plug-in and
// real packets, on labs in network namespaces.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"cairn.network/cairn/lab/scenario"
)

// bin and root are the folders of the programs under test and of the labs. They
// are set once, before any test.
var bin, root string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "cairn-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin, root = filepath.Join(dir, "bin"), filepath.Join(dir, "labs")
	build := exec.Command("go", "build", "-o", bin+"/", "./cmd/...")
	build.Dir, build.Stdout, build.Stderr = "..", os.Stderr, os.Stderr
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the programs:", err)
		return 1
	}
	return m.Run()
}

func TestScenarios(t *testing.T) {
	p := scenario.Params(scenario.Options{Root: root, Bin: bin})
	p.Dir = "scenarios"
	testscript.Run(t, p)
}
