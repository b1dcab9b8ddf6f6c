package cairn_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "cairn.network/cairn"

// floor is where a package lies: it imports only packages of lower floors, and
// those of its own floor that stand above it in this table.
type floor struct {
	level  int
	pkg    string // below the module; a trailing /... takes in what is below it
	heavy  []string
	reason string
}

// floors is the architecture, lowest to highest. heavy names the outside modules
// that nobody else may import.
var floors = []floor{
	{0, "version", nil, "which build this is"},
	{0, "immutable", nil, "maps that share what did not change: what lets cost follow the change; standard library only"},
	{0, "selector", nil, "the label language; the resources' door refuses bad ones, so it lies below them"},
	{0, "api/v1", []string{"k8s.io/apimachinery", "sigs.k8s.io/yaml", "sigs.k8s.io/json", "go.yaml.in/yaml/v3", "k8s.io/api", "sigs.k8s.io/network-policy-api"}, "the resources"},
	{0, "kernel", nil, "the host's network as values, and the seam to it"},
	{0, "bgp", nil, "peers, paths and sessions as values, and the seam to the speaker"},
	{0, "agent/reconcile", nil, "one loop for every table; standard library only"},
	{0, "cni/protocol", nil, "how plug-in and agent talk; standard library only, or the plug-in starts slowly"},
	{1, "agent/localapi", nil, "how ctl and agent talk"},
	{1, "config", []string{"github.com/spf13/pflag", "github.com/spf13/cobra", "sigs.k8s.io/yaml"}, "flags, environment and file, the same for every command"},
	{1, "policy", []string{"k8s.io/api", "sigs.k8s.io/network-policy-api"}, "who may talk to whom: the language, its reference model and its compiler"},
	{1, "policy/policytest", nil, "random worlds of policies and packets, and rules checked as the kernel does"},
	{1, "datastore", nil, "the seam to the resources' store, and the mirror"},
	{1, "datastore/storetest", nil, "the suite of every store"},
	{1, "kernel/kerneltest", nil, "the suite of every kernel"},
	{1, "bgp/bgptest", nil, "the suite of every speaker"},
	{1, "kernel/linux", []string{"github.com/vishvananda/netlink", "github.com/vishvananda/netns", "github.com/mdlayher/netlink", "github.com/google/nftables", "golang.org/x/sys/unix", "golang.zx2c4.com/wireguard/wgctrl", "github.com/safchain/ethtool"}, "the driver of the kernel"},
	{1, "kernel/linux/needs", []string{"github.com/vishvananda/netlink", "golang.org/x/sys/unix"}, "what a test needs of the kernel"},
	{1, "bgp/gobgp", []string{"github.com/osrg/gobgp"}, "the driver of the speaker"},
	{1, "datastore/etcd", []string{"go.etcd.io/etcd/client", "go.etcd.io/etcd/api", "google.golang.org/grpc", "go.uber.org/zap"}, "the driver of etcd"},
	{1, "datastore/etcd/etcdserver", []string{"go.etcd.io/etcd/server", "go.etcd.io/etcd/client", "go.uber.org/zap", "google.golang.org/grpc"}, "an etcd in the process, for tests and the lab; production never needs it"},
	{1, "datastore/etcd/etcdtest", []string{"go.etcd.io/etcd/client", "go.uber.org/zap"}, "clusters of such for tests: TLS, users, faults"},
	{2, "ipam", nil, "blocks, and who has which address"},
	{2, "agent/calc", nil, "the pure core: what a node should be"},
	{3, "agent", []string{"github.com/prometheus"}, "the agent's shell"},
	{3, "cni", []string{"github.com/containernetworking/cni"}, "the plug-in's shell"},
	{3, "ctl", []string{"github.com/spf13/cobra"}, "the command line's shell"},
	{4, "lab/...", []string{"github.com/vishvananda/netlink", "github.com/vishvananda/netns", "golang.org/x/sys/unix", "github.com/containernetworking/cni", "github.com/spf13/cobra", "github.com/rogpeppe/go-internal", "sigs.k8s.io/json", "golang.org/x/net", "github.com/gopacket/gopacket"}, "clusters on one machine; it makes namespaces itself"},
	{5, "cmd/...", []string{"github.com/spf13/cobra", "github.com/spf13/pflag", "github.com/containernetworking/cni"}, "the mains: only they choose drivers"},
	{6, "e2e", nil, "what the whole must show"},
}

// drivers may be imported by mains and the lab only: everybody else works through
// the seams.
var drivers = []string{"kernel/linux", "bgp/gobgp", "datastore/etcd"}

// free are outside modules that any package may import.
var free = []string{"golang.org/x/sync", "k8s.io/apimachinery", "sigs.k8s.io/yaml", "github.com/spf13/pflag"}

func (f floor) holds(pkg string) bool {
	if below, ok := strings.CutSuffix(f.pkg, "/..."); ok {
		return pkg == below || strings.HasPrefix(pkg, below+"/")
	}
	return pkg == f.pkg
}

func floorOf(pkg string) int {
	return slices.IndexFunc(floors, func(f floor) bool { return f.holds(pkg) })
}

// packages returns every package of the module but the root: its path below the
// module, and what its files other than tests import.
func packages(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	pkgs := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if pkg, ok := strings.CutPrefix(f[0], module+"/"); ok {
			pkgs[pkg] = f[1:]
		}
	}
	if len(pkgs) < 10 {
		t.Fatalf("go list found only %d packages", len(pkgs))
	}
	return pkgs
}

func TestImportsPointDown(t *testing.T) {
	for pkg, imports := range packages(t) {
		own := floorOf(pkg)
		if own < 0 {
			t.Errorf("%s is on no floor: add it to the table with its reason", pkg)
			continue
		}
		for _, imp := range imports {
			if dep, ours := strings.CutPrefix(imp, module+"/"); ours {
				checkOwn(t, pkg, own, dep)
			} else if strings.Contains(strings.Split(imp, "/")[0], ".") {
				checkOutside(t, pkg, own, imp)
			}
		}
	}
}

func checkOwn(t *testing.T, pkg string, own int, dep string) {
	other := floorOf(dep)
	switch {
	case other < 0:
		t.Errorf("%s imports %s, which is on no floor", pkg, dep)
	case other > own:
		t.Errorf("%s imports %s, which lies above it: %s", pkg, dep, floors[other].reason)
	case slices.Contains(drivers, dep) && floors[own].level < 4 && !strings.HasPrefix(pkg, dep):
		t.Errorf("%s imports the driver %s: only mains choose drivers", pkg, dep)
	}
}

func checkOutside(t *testing.T, pkg string, own int, imp string) {
	in := func(list []string) bool {
		return slices.ContainsFunc(list, func(m string) bool { return imp == m || strings.HasPrefix(imp, m+"/") })
	}
	if in(floors[own].heavy) || in(free) {
		return
	}
	for _, f := range floors {
		if in(f.heavy) {
			t.Errorf("%s imports %s, which belongs to %s", pkg, imp, f.pkg)
			return
		}
	}
	if strings.HasSuffix(pkg, "test") {
		return // suites may use the test libraries
	}
	t.Errorf("%s imports %s, which no line of the table allows", pkg, imp)
}

// TestPluginIsSmall keeps what is exec'd for each pod free of what takes long to
// start.
func TestPluginIsSmall(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./cmd/cairn-cni").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for _, banned := range []string{"net/http", "google.golang.org/grpc", "github.com/osrg/gobgp", "go.etcd.io", "k8s.io", module + "/api"} {
		for dep := range strings.Lines(string(out)) {
			if dep = strings.TrimSpace(dep); dep == banned || strings.HasPrefix(dep, banned+"/") {
				t.Errorf("cairn-cni depends on %s", dep)
			}
		}
	}
}

func TestPackageComments(t *testing.T) {
	dirs := map[string]bool{}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && file != "." || d.Name() == "testdata" || d.Name() == "bin" || d.Name() == "tools") {
			return filepath.SkipDir
		}
		if path.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.Dir(file)
		dirs[dir] = dirs[dir] || f.Doc.Text() != ""
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, commented := range dirs {
		if !commented {
			t.Errorf("package in %s has no comment that says what it guarantees", dir)
		}
	}
}

// TestMainsAreShort: a main wires, and does nothing else.
func TestMainsAreShort(t *testing.T) {
	mains, err := filepath.Glob("cmd/*/main.go")
	if err != nil || len(mains) == 0 {
		t.Fatalf("no mains: %v", err)
	}
	for _, file := range mains {
		out, err := exec.Command("wc", "-l", file).Output()
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Fields(string(out))[0]; len(lines) > 3 || len(lines) == 3 && lines > "120" {
			t.Errorf("%s has %s lines", file, lines)
		}
	}
}
