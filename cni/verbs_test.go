package cni

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/cni/protocol"
	"cairn.network/cairn/kernel"
)

// attached returns a bench with a pod on it, and the runtime's arguments for the
// verbs that follow.
func attached(t *testing.T) (*bench, *skel.CmdArgs) {
	t.Helper()
	b := newBench(t)
	stop := b.agent.start(t)
	args := b.args(t, "c1", "web")
	if err := b.plugin.Funcs(t.Context()).Add(args); err != nil {
		t.Fatal(err)
	}
	b.prev(t)
	b.agent.verbs()
	stop()
	netns := args.Netns
	args = b.args(t, "c1", "web")
	args.Netns = netns
	return b, args
}

func TestDel(t *testing.T) {
	for name, change := range map[string]func(*bench, *skel.CmdArgs){
		"plain":            func(*bench, *skel.CmdArgs) {},
		"no netns":         func(_ *bench, a *skel.CmdArgs) { a.Netns = "" },
		"netns is gone":    func(_ *bench, a *skel.CmdArgs) { a.Netns = "/nowhere/netns" },
		"no prevResult":    func(b *bench, a *skel.CmdArgs) { delete(b.conf, "prevResult") },
		"args say nothing": func(_ *bench, a *skel.CmdArgs) { a.Args = "" }, // prevResult names the link
		"link is gone":     func(b *bench, _ *skel.CmdArgs) { b.kernel.DelLink(kernel.PodLink("default", "web", "eth0")) },
		"agent forgot":     func(b *bench, _ *skel.CmdArgs) { clear(b.agent.given) },
		"everything at once": func(b *bench, a *skel.CmdArgs) {
			a.Netns = ""
			b.kernel.DelLink(kernel.PodLink("default", "web", "eth0"))
			clear(b.agent.given)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, args := attached(t)
			b.agent.start(t)
			change(b, args)
			if b.conf["prevResult"] == nil {
				args.StdinData = b.args(t, "c1", "web").StdinData
			}
			for range 2 { // twice is no error
				if err := b.plugin.Funcs(t.Context()).Del(args); err != nil {
					t.Fatal(err)
				}
				b.nothingLeft(t)
			}
			if diff := cmp.Diff([]string{"DEL", "DEL"}, b.agent.verbs()); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}
}

// TestDelWithoutAgent shows that a DEL succeeds at once and leaves a note that
// says everything.
func TestDelWithoutAgent(t *testing.T) {
	b, args := attached(t)
	for range 2 {
		if err := b.plugin.Funcs(t.Context()).Del(args); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.links(); len(got) > 0 {
		t.Errorf("links left: %v", got)
	}
	if diff := cmp.Diff([]string{"c1-eth0.json"}, b.notes(t)); diff != "" {
		t.Fatalf("notes (-want +got):\n%s", diff)
	}
	text, err := os.ReadFile(filepath.Join(b.spool, "c1-eth0.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got protocol.Request
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want := protocol.Request{
		Verb: "DEL", ContainerID: "c1", Interface: "eth0", Netns: args.Netns, Namespace: "default", Pod: "web", Network: "net",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("note (-want +got):\n%s", diff)
	}

	// An ADD of the same container takes the note back: it must not undo the ADD.
	b.agent.start(t)
	delete(b.conf, "prevResult")
	if err := b.plugin.Funcs(t.Context()).Add(b.args(t, "c1", "web")); err != nil {
		t.Fatal(err)
	}
	if got := b.notes(t); len(got) > 0 {
		t.Errorf("notes after ADD: %v", got)
	}
}

// TestDelRefused shows that whatever the agent answers, a note makes good.
func TestDelRefused(t *testing.T) {
	for _, code := range []protocol.Code{protocol.CodeInvalid, protocol.CodeUnavailable, protocol.CodeTimeout, protocol.CodeInternal} {
		t.Run(string(code), func(t *testing.T) {
			b, args := attached(t)
			b.agent.failOn("DEL", code)
			b.agent.start(t)
			if err := b.plugin.Funcs(t.Context()).Del(args); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"c1-eth0.json"}, b.notes(t)); diff != "" {
				t.Errorf("notes (-want +got):\n%s", diff)
			}
		})
	}
}

// TestDelFails shows the two ways in which a DEL can't be done: then nothing is
// given back.
func TestDelFails(t *testing.T) {
	t.Run("link stays", func(t *testing.T) {
		b, args := attached(t)
		b.agent.start(t)
		b.kernel.Fail("detach", "c1", syscall.EPERM)
		wantError(t, b.plugin.Funcs(t.Context()).Del(args), 999, "delete pod default/web (container c1): remove the link: ", "operation not permitted")
		if len(b.agent.held()) != 1 || len(b.agent.verbs()) > 0 {
			t.Error("an address was given back that a link still carries")
		}
	})
	t.Run("no agent and no spool", func(t *testing.T) {
		b, args := attached(t)
		if err := os.WriteFile(b.spool, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		wantError(t, b.plugin.Funcs(t.Context()).Del(args), 999, "leave a note for the agent: ", "not a directory")
	})
}

// TestLateDel deletes a container whose pod has a successor of the same name.
func TestLateDel(t *testing.T) {
	b, late := attached(t)
	b.agent.start(t)
	delete(b.conf, "prevResult")
	if err := b.plugin.Funcs(t.Context()).Add(b.args(t, "c2", "web")); err != nil {
		t.Fatal(err)
	}
	if err := b.plugin.Funcs(t.Context()).Del(late); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{kernel.PodLink("default", "web", "eth0"): "c2"}, b.links()); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	if held := b.agent.held(); len(held) != 1 || !held[protocol.Sandbox{ContainerID: "c2", Interface: "eth0"}].IPv4.IsValid() {
		t.Errorf("addresses held: %v", held)
	}
}

func TestCheck(t *testing.T) {
	link := kernel.PodLink("default", "web", "eth0")
	key := protocol.Sandbox{ContainerID: "c1", Interface: "eth0"}
	for name, row := range map[string]struct {
		spoil func(*bench)
		code  uint
		part  string
	}{
		"well": {func(*bench) {}, 0, ""},
		"MTU has moved": {func(b *bench) {
			b.agent.given[key] = change(b.agent.given[key], func(r *protocol.Response) { r.MTU = 1300 })
		}, 0, ""},
		"agent forgot": {func(b *bench) { clear(b.agent.given) }, 3, "check pod default/web (container c1): no such container"},
		"other address": {func(b *bench) {
			b.agent.given[key] = change(b.agent.given[key], func(r *protocol.Response) { r.IPv4 = r.IPv4.Next() })
		}, 101, "the pod was given 10.9.0.1 and fd00:9::1, and the agent has 10.9.0.2 and fd00:9::1 for it"},
		"other link": {func(b *bench) {
			b.agent.given[key] = change(b.agent.given[key], func(r *protocol.Response) { r.HostLink = "cairnx" })
		}, 101, `the pod's link was "` + link + `", and the agent knows it as "cairnx"`},
		"link is gone":       {func(b *bench) { b.kernel.DelLink(link) }, 101, "no such device"},
		"no routes":          {func(b *bench) { b.agent.failOn("CHECK", protocol.CodeInternal) }, 999, "because"},
		"no prevResult":      {func(b *bench) { delete(b.conf, "prevResult") }, 7, "prevResult: required for CHECK"},
		"agent is not there": {func(b *bench) { b.conf["socket"] = "/nowhere/cni.sock"; b.conf["connect_timeout"] = "1ms" }, 11, "no agent listens at /nowhere/cni.sock"},
	} {
		t.Run(name, func(t *testing.T) {
			b, args := attached(t)
			b.agent.start(t)
			row.spoil(b)
			netns := args.Netns
			args = b.args(t, "c1", "web")
			args.Netns = netns
			err := b.plugin.Funcs(t.Context()).Check(args)
			if row.code == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, err, row.code, row.part)
		})
	}
}

func change(r protocol.Response, f func(*protocol.Response)) protocol.Response {
	f(&r)
	return r
}

func TestStatus(t *testing.T) {
	b := newBench(t)
	args := &skel.CmdArgs{StdinData: b.args(t, "", "").StdinData}
	wantError(t, b.plugin.Funcs(t.Context()).Status(args), 50, "ask for the state of network net: no agent listens at "+b.agent.socket)
	b.agent.start(t)
	if err := b.plugin.Funcs(t.Context()).Status(args); err != nil {
		t.Error(err)
	}
	b.agent.failOn("STATUS", protocol.CodeUnavailable)
	wantError(t, b.plugin.Funcs(t.Context()).Status(args), 50, "because")
}

func TestGC(t *testing.T) {
	b := newBench(t)
	b.agent.start(t)
	for _, c := range []string{"c1", "c2", "c3"} {
		if err := b.plugin.Funcs(t.Context()).Add(b.args(t, c, c)); err != nil {
			t.Fatal(err)
		}
	}
	gc := func() error {
		return b.plugin.Funcs(t.Context()).GC(&skel.CmdArgs{StdinData: b.args(t, "", "").StdinData})
	}
	if err := gc(); err != nil || len(b.agent.held()) != 3 {
		t.Fatalf("GC without a list: %v, held %v", err, b.agent.held())
	}
	b.conf["cni.dev/valid-attachments"] = []types.GCAttachment{{ContainerID: "c2", IfName: "eth0"}}
	if err := gc(); err != nil {
		t.Fatal(err)
	}
	if held := b.agent.held(); len(held) != 1 || !held[protocol.Sandbox{ContainerID: "c2", Interface: "eth0"}].IPv4.IsValid() {
		t.Errorf("addresses held: %v", held)
	}
	b.conf["cni.dev/valid-attachments"] = nil
	if err := gc(); err != nil || len(b.agent.held()) != 0 {
		t.Errorf("GC of all: %v, held %v", err, b.agent.held())
	}
}

// TestSpool writes notes from many sides at once: each is whole, and no other
// file is left.
func TestSpool(t *testing.T) {
	s := spool{dir: filepath.Join(t.TempDir(), "deep", "spool")}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := s.leave(protocol.Request{Verb: "DEL", ContainerID: "c1", Interface: "eth0"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	files, err := os.ReadDir(s.dir)
	if err != nil || len(files) != 1 || files[0].Name() != "c1-eth0.json" {
		t.Fatalf("files: %v, %v", files, err)
	}
	req := protocol.Request{ContainerID: "c1", Interface: "eth0"}
	for range 2 {
		if err := s.take(req); err != nil {
			t.Error(err)
		}
	}
	if files, _ := os.ReadDir(s.dir); len(files) != 0 {
		t.Errorf("files: %v", files)
	}
}

func TestVersions(t *testing.T) {
	if got := Versions().SupportedVersions(); !slices.Equal(got, []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}) {
		t.Errorf("versions: %v", got)
	}
}
