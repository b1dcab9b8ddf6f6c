package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"

	"cairn.network/cairn/cni/protocol"
	"cairn.network/cairn/kernel"
)

// fakeAgent gives addresses as an agent does: the same to the same container,
// none to two. It survives its server, as an agent's journal survives it.
type fakeAgent struct {
	socket string

	mu     sync.Mutex
	given  map[protocol.Sandbox]protocol.Response
	asked  []protocol.Request
	next   int
	answer func(context.Context, protocol.Request) *protocol.Response // nil, or returning nil: as usual
	mtu    int
}

func newFakeAgent(t testing.TB) *fakeAgent {
	return &fakeAgent{
		socket: filepath.Join(t.TempDir(), "cni.sock"), given: map[protocol.Sandbox]protocol.Response{}, mtu: 1450,
	}
}

// start serves until the returned function is called, or the test ends.
func (f *fakeAgent) start(t testing.TB) (stop func()) {
	t.Helper()
	l, err := protocol.Listen(f.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- protocol.Serve(ctx, l, f.handle) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("fake agent: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (f *fakeAgent) handle(ctx context.Context, req protocol.Request) protocol.Response {
	f.mu.Lock()
	asked := req
	asked.TimeoutMillis = 0
	f.asked = append(f.asked, asked)
	answer := f.answer
	f.mu.Unlock()
	if answer != nil {
		if resp := answer(ctx, req); resp != nil {
			return *resp
		}
	}
	if req.Verb == protocol.VerbAdd {
		return f.give(req)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	key := sandboxOf(req)
	given, known := f.given[key]
	switch req.Verb {
	case protocol.VerbReady, protocol.VerbCheck:
		if !known {
			return *refuse(protocol.CodeUnknown, "no such container")
		}
		return given
	case protocol.VerbDel:
		delete(f.given, key)
	case protocol.VerbGC:
		for key := range f.given {
			if !slices.Contains(req.Valid, key) {
				delete(f.given, key)
			}
		}
	}
	return protocol.Response{}
}

func sandboxOf(req protocol.Request) protocol.Sandbox {
	return protocol.Sandbox{ContainerID: req.ContainerID, Interface: req.Interface}
}

// give answers an ADD. No address is used twice here, so that tests can tell the
// same from another.
func (f *fakeAgent) give(req protocol.Request) protocol.Response {
	f.mu.Lock()
	defer f.mu.Unlock()
	if given, known := f.given[sandboxOf(req)]; known {
		return given
	}
	f.next++
	r := protocol.Response{HostLink: kernel.PodLink(req.Namespace, req.Pod, req.Interface), MTU: f.mtu}
	if req.IPv4 || !req.IPv6 {
		r.IPv4 = netip.AddrFrom4([4]byte{10, 9, byte(f.next >> 8), byte(f.next)})
	}
	if req.IPv6 || !req.IPv4 {
		r.IPv6 = netip.MustParseAddr(fmt.Sprintf("fd00:9::%x", f.next))
	}
	f.given[sandboxOf(req)] = r
	return r
}

func (f *fakeAgent) behave(answer func(context.Context, protocol.Request) *protocol.Response) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

// failOn makes a verb fail.
func (f *fakeAgent) failOn(verb string, code protocol.Code) {
	f.behave(func(_ context.Context, req protocol.Request) *protocol.Response {
		if req.Verb != verb {
			return nil
		}
		return refuse(code, "because")
	})
}

func refuse(code protocol.Code, why string) *protocol.Response {
	return &protocol.Response{Error: &protocol.Error{Code: code, Message: why}}
}

func (f *fakeAgent) held() map[protocol.Sandbox]protocol.Response {
	f.mu.Lock()
	defer f.mu.Unlock()
	held := map[protocol.Sandbox]protocol.Response{}
	for k, v := range f.given {
		held[k] = v
	}
	return held
}

// verbs returns what was asked since the last call.
func (f *fakeAgent) verbs() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var verbs []string
	for _, r := range f.asked {
		verbs = append(verbs, r.Verb)
	}
	f.asked = nil
	return verbs
}

// bench is a plug-in between a fake agent and a fake kernel.
type bench struct {
	agent  *fakeAgent
	kernel *kernel.Fake
	plugin *Plugin
	out    *bytes.Buffer
	spool  string
	conf   map[string]any
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{agent: newFakeAgent(t), kernel: kernel.NewFake(), out: &bytes.Buffer{}, spool: filepath.Join(t.TempDir(), "spool")}
	b.plugin = New(b.kernel, b.out)
	b.conf = map[string]any{
		"cniVersion": "1.1.0", "name": "net", "type": "cairn-cni", "socket": b.agent.socket, "spool": b.spool,
	}
	return b
}

// args returns what a runtime hands over for a pod of this name.
func (b *bench) args(t testing.TB, container, name string) *skel.CmdArgs {
	t.Helper()
	text, err := json.Marshal(b.conf)
	if err != nil {
		t.Fatal(err)
	}
	return &skel.CmdArgs{
		ContainerID: container, IfName: "eth0", Netns: otherNetns(t), StdinData: text,
		Args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + name + ";K8S_POD_INFRA_CONTAINER_ID=" + container,
	}
}

// links returns the pods' links that the host has, by name, with their owner.
func (b *bench) links() map[string]string {
	links := map[string]string{}
	for name, l := range b.kernel.Host().Links {
		if a, ok := kernel.ParsePodAlias(l.Alias); ok {
			links[name] = a.ContainerID
		}
	}
	return links
}

// notes returns what waits in the spool.
func (b *bench) notes(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(b.spool, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range files {
		files[i] = filepath.Base(files[i])
	}
	return files
}

// prev puts the result that was printed last into the configuration.
func (b *bench) prev(t testing.TB) {
	t.Helper()
	var r map[string]any
	if err := json.Unmarshal(b.out.Bytes(), &r); err != nil {
		t.Fatalf("result %q: %v", b.out, err)
	}
	b.conf["prevResult"] = r
	b.out.Reset()
}
