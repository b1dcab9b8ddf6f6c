package cni

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/cni/protocol"
)

// build compiles a program the way releases do, and returns its path.
func build(t testing.TB, pkg, name string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", "build", "-o", file, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return file
}

// node is a host as a runtime sees it: the plug-in's program, a network
// namespace for the host, an agent. The kernel is the real one.
type node struct {
	plugin string // path
	host   string // network namespace
	agent  *fakeAgent
	spool  string
	cni    *libcni.CNIConfig
}

func newNode(t testing.TB, plugin string) *node {
	t.Helper()
	return &node{
		plugin: plugin, host: otherNetns(t), agent: newFakeAgent(t), spool: filepath.Join(t.TempDir(), "spool"),
		cni: libcni.NewCNIConfigWithCacheDir([]string{filepath.Dir(plugin)}, t.TempDir(), nil),
	}
}

// conf returns the text of a list of networks that holds the plug-in.
func (n *node) conf(version string) string {
	return fmt.Sprintf(`{"cniVersion": %q, "name": "net", "plugins": [{"type": "cairn-cni", "socket": %q, "spool": %q, "connect_timeout": "50ms"}]}`,
		version, n.agent.socket, n.spool)
}

func (n *node) list(t testing.TB, version string) *libcni.NetworkConfigList {
	t.Helper()
	list, err := libcni.NetworkConfFromBytes([]byte(n.conf(version)))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func runtimeOf(container, netns string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: container, NetNS: netns, IfName: "eth0",
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", "web"}, {"K8S_POD_INFRA_CONTAINER_ID", container}},
	}
}

// nothingLeft checks that the host has no pod's link and the agent no address.
func (n *node) nothingLeft(t *testing.T) {
	t.Helper()
	if got := podLinks(t, n.host); len(got) > 0 {
		t.Errorf("links left: %v", got)
	}
	if got := n.agent.held(); len(got) > 0 {
		t.Errorf("addresses left: %v", got)
	}
}

func TestBinary(t *testing.T) {
	plugin := build(t, "cairn.network/cairn/cmd/cairn-cni", "cairn-cni")
	t.Run("is static", func(t *testing.T) { testStatic(t, plugin) })
	for _, version := range Versions().SupportedVersions() {
		t.Run("libcni "+version, func(t *testing.T) { testLibcni(t, plugin, version) })
	}
	t.Run("cnitool", func(t *testing.T) { testCnitool(t, plugin) })
	t.Run("nobody takes the result", func(t *testing.T) { testBrokenPipe(t, plugin) })
	t.Run("errors", func(t *testing.T) { testErrors(t, plugin) })
	for _, verb := range []string{protocol.VerbAdd, protocol.VerbReady} {
		t.Run("killed in "+verb, func(t *testing.T) { testKilled(t, plugin, verb) })
		t.Run("terminated in "+verb, func(t *testing.T) { testTerminated(t, plugin, verb) })
	}
}

func testStatic(t *testing.T, plugin string) {
	f, err := elf.Open(plugin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program needs a dynamic loader")
		}
	}
}

func testLibcni(t *testing.T, plugin, version string) {
	n := newNode(t, plugin)
	n.agent.start(t)
	pod := otherNetns(t)
	list, rt := n.list(t, version), runtimeOf("c1", pod)
	ctx := t.Context()
	within(t, n.host, func() {
		if _, err := n.cni.ValidateNetworkList(ctx, list); err != nil {
			t.Error(err)
		}
		if err := n.cni.GetStatusNetworkList(ctx, list); err != nil { // does nothing before 1.1.0
			t.Error(err)
		}
		r, err := n.cni.AddNetworkList(ctx, list, rt)
		if err != nil {
			t.Fatal(err)
		}
		if r.Version() != version {
			t.Errorf("result is of version %s", r.Version())
		}
		result, err := types100.NewResultFromResult(r)
		if err != nil {
			t.Fatal(err)
		}
		if len(result.IPs) != 2 || len(result.Interfaces) != 2 || result.Interfaces[1].Mac == "" {
			t.Errorf("result: %v", result)
		}
	})
	if diff := cmp.Diff([]string{"10.9.0.1/32", "fd00:9::1/128"}, addrs(t, pod, "eth0")); diff != "" {
		t.Errorf("addresses in the pod (-want +got):\n%s", diff)
	}
	if got := podLinks(t, n.host); len(got) != 1 {
		t.Errorf("links on the host: %v", got)
	}
	within(t, n.host, func() {
		if version != "0.3.1" { // it has no CHECK
			if err := n.cni.CheckNetworkList(ctx, list, rt); err != nil {
				t.Errorf("CHECK: %v", err)
			}
		}
		if err := n.cni.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "c1", IfName: "eth0"}}}); err != nil {
			t.Errorf("GC: %v", err)
		}
		if len(n.agent.held()) != 1 {
			t.Error("GC took a valid container's addresses")
		}
		rt.NetNS = "" // the runtime has lost it
		for range 2 {
			if err := n.cni.DelNetworkList(ctx, list, rt); err != nil {
				t.Errorf("DEL: %v", err)
			}
		}
	})
	n.nothingLeft(t)
	if got := addrs(t, pod, "eth0"); len(got) > 0 {
		t.Errorf("addresses in the pod after DEL: %v", got)
	}
}

// testCnitool is what an engineer does by hand: no pod of Kubernetes, only a
// network namespace.
func testCnitool(t *testing.T, plugin string) {
	n := newNode(t, plugin)
	n.agent.start(t)
	tool := build(t, "github.com/containernetworking/cni/cnitool", "cnitool")
	confDir := t.TempDir()
	if err := os.WriteFile(filepath.Join(confDir, "10-cairn.conflist"), []byte(n.conf("1.1.0")), 0o600); err != nil {
		t.Fatal(err)
	}
	pod, cache := otherNetns(t), t.TempDir()
	run := func(verb string, args ...string) {
		t.Helper()
		// cnitool insists on a cache in /var/lib/cni: it gets a /var/lib of its own.
		cmd := exec.Command("sh", append([]string{"-ec", `mount --bind "$0" /var/lib; exec "$@"`, cache, tool, verb, "net"}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		cmd.Env = append(os.Environ(), "CNI_PATH="+filepath.Dir(plugin), "NETCONFPATH="+confDir)
		within(t, n.host, func() {
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("cnitool %s: %v\n%s", verb, err, out)
			}
		})
	}
	run("status", pod)
	for range 2 { // the same container ID comes again
		run("add", pod)
		if got := addrs(t, pod, "eth0"); len(got) != 2 {
			t.Errorf("addresses in the pod: %v", got)
		}
		run("check", pod)
		run("del", pod)
		run("del", pod)
		n.nothingLeft(t)
	}
	run("add", pod)
	run("gc", pod)
	run("del", pod)
	n.nothingLeft(t)
}

// command returns the plug-in as a runtime executes it.
func (n *node) command(verb, conf, netns string) (*exec.Cmd, *bytes.Buffer) {
	cmd := exec.Command(n.plugin)
	cmd.Env = []string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=c1", "CNI_NETNS=" + netns, "CNI_IFNAME=eth0", "CNI_PATH=/nowhere",
		"CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME=web",
	}
	cmd.Stdin = strings.NewReader(conf)
	out := &bytes.Buffer{}
	cmd.Stdout = out
	return cmd, out
}

// single returns the configuration of one plug-in, with more keys.
func (n *node) single(more string) string {
	return fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "net", "type": "cairn-cni", "socket": %q, "spool": %q, "connect_timeout": "50ms"%s}`, n.agent.socket, n.spool, more)
}

func testErrors(t *testing.T, plugin string) {
	n := newNode(t, plugin)
	pod := otherNetns(t)
	for name, row := range map[string]struct {
		verb, conf, netns string
		code              uint
		part              string
	}{
		"no JSON":         {"ADD", "{", pod, 6, "error unmarshall network config"},
		"unknown key":     {"ADD", n.single(`, "mut": 1`), pod, 7, "mut: unknown key"},
		"bad value":       {"DEL", n.single(`, "mtu": 1`), pod, 7, "mtu: must be 1280"},
		"unknown version": {"ADD", strings.Replace(n.single(""), "1.1.0", "9.9.9", 1), pod, 1, "incompatible CNI versions"},
		"no agent":        {"ADD", n.single(""), pod, 11, "no agent listens at " + n.agent.socket},
		"no agent, 1.1.0": {"STATUS", n.single(""), "", 50, "no agent listens at " + n.agent.socket},
		"no netns":        {"ADD", n.single(""), "/nowhere", 8, "no such file"},
		"host's netns":    {"ADD", n.single(""), n.host, 8, "is the host's own"},
		"unknown command": {"MOVE", n.single(""), pod, 4, "unknown CNI_COMMAND"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd, out := n.command(row.verb, row.conf, row.netns)
			var err error
			within(t, n.host, func() { err = cmd.Run() })
			if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
				t.Errorf("ended with %v, want exit code 1", err)
			}
			var e types.Error
			if err := json.Unmarshal(out.Bytes(), &e); err != nil {
				t.Fatalf("%s: %v", out, err)
			}
			wantError(t, &e, row.code, row.part)
		})
	}
	n.nothingLeft(t)
}

// testBrokenPipe lets the runtime die before it has the result.
func testBrokenPipe(t *testing.T, plugin string) {
	n := newNode(t, plugin)
	n.agent.start(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r.Close()
	cmd, _ := n.command("ADD", n.single(""), otherNetns(t))
	cmd.Stdout = w
	within(t, n.host, func() { err = cmd.Run() })
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("ended with %v, want exit code 1", err)
	}
	n.nothingLeft(t)
}

// begin starts an ADD and returns when the agent has done the verb and is about
// to answer; it never does.
func (n *node) begin(t *testing.T, verb, pod string) *exec.Cmd {
	t.Helper()
	reached, once := make(chan struct{}), sync.Once{}
	n.agent.behave(func(ctx context.Context, req protocol.Request) *protocol.Response {
		if req.Verb != verb {
			return nil
		}
		if verb == protocol.VerbAdd {
			n.agent.give(req)
		}
		once.Do(func() { close(reached) })
		<-ctx.Done() // the plug-in has gone
		return &protocol.Response{}
	})
	n.agent.start(t)
	cmd, _ := n.command("ADD", n.single(""), pod)
	var err error
	within(t, n.host, func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	<-reached
	return cmd
}

// testKilled kills the plug-in in the middle of an ADD: the DEL that runtimes
// send then leaves nothing.
func testKilled(t *testing.T, plugin, verb string) {
	n := newNode(t, plugin)
	pod := otherNetns(t)
	cmd := n.begin(t, verb, pod)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	n.agent.behave(nil)
	if len(n.agent.held()) != 1 || verb == protocol.VerbReady && len(podLinks(t, n.host)) != 1 {
		t.Error("the ADD should have come as far as its address, and its link")
	}
	n.delete(t, pod)
	// The same container may be added again, and gone for good.
	again, out := n.command("ADD", n.single(""), pod)
	within(t, n.host, func() {
		if err := again.Run(); err != nil {
			t.Errorf("ADD after all: %v\n%s", err, out)
		}
	})
	n.delete(t, pod)
}

func (n *node) delete(t *testing.T, pod string) {
	t.Helper()
	cmd, out := n.command("DEL", n.single(""), pod)
	within(t, n.host, func() {
		if err := cmd.Run(); err != nil {
			t.Errorf("DEL: %v\n%s", err, out)
		}
	})
	n.nothingLeft(t)
}

// testTerminated ends the plug-in by a signal: it undoes what it did.
func testTerminated(t *testing.T, plugin, verb string) {
	n := newNode(t, plugin)
	cmd := n.begin(t, verb, otherNetns(t))
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("a terminated ADD succeeded")
	}
	n.nothingLeft(t)
}
