// Package e2e holds what the whole must show: real agents, the real plug-in and
// real packets, on labs in network namespaces.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"cairn.network/cairn/kernel/linux/needs"
	"cairn.network/cairn/lab/probe"
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
	if built := os.Getenv("CAIRN_BIN"); built != "" {
		bin = built
		return m.Run()
	}
	build := exec.Command("go", "build", "-o", bin+"/", "./cmd/...")
	build.Dir, build.Stdout, build.Stderr = "..", os.Stderr, os.Stderr
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the programs:", err)
		return 1
	}
	return m.Run()
}

// TestScenarios runs the scenarios. One that shows how things are without some kind
// of links begins with a line that names it: # lacks: ipip
func TestScenarios(t *testing.T) { scenarios(t, false) }

// TestScenariosVM runs the scenarios that need what not every kernel has. They
// begin with a line that names the kinds of links: # needs: ipip wireguard
func TestScenariosVM(t *testing.T) { scenarios(t, true) }

// emulatedPace is the pace of streams in the VM, whose processors may be emulated: at
// the usual pace they get behind, and then the kernel drops what waits.
const emulatedPace = 3 * probe.StreamPace

func scenarios(t *testing.T, needy bool) {
	all, err := filepath.Glob("scenarios/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	kinds, lacking := map[string][]string{}, map[string][]string{} // by scenario
	o := scenario.Options{Root: root, Bin: bin}
	if needy {
		o.Pace = emulatedPace
	}
	p := scenario.Params(o)
	for _, file := range all {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(b), "\n")
		line, found := strings.CutPrefix(first, "# needs: ")
		if found != needy {
			continue
		}
		p.Files = append(p.Files, file)
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		if needy {
			kinds[name] = strings.Fields(line)
		}
		if line, found := strings.CutPrefix(first, "# lacks: "); found {
			lacking[name] = strings.Fields(line)
		}
	}
	if len(p.Files) == 0 {
		t.Fatal("there is no such scenario")
	}
	setup := p.Setup
	p.Setup = func(e *testscript.Env) error {
		name := strings.TrimPrefix(filepath.Base(e.WorkDir), "script-")
		for _, kind := range kinds[name] {
			needs.Link(e.T().(testing.TB), kind)
		}
		for _, kind := range lacking[name] {
			needs.NoLink(e.T().(testing.TB), kind)
		}
		return setup(e)
	}
	testscript.Run(t, p)
}
