package agent_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cairn.network/cairn/agent"
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/cni/protocol"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/kernel"
)

// solo is one node, n1, whose agent is started by hand.
type solo struct {
	t      *testing.T
	cfg    agent.Config
	store  *datastore.Memory
	fabric *bgp.Fabric
	kernel *kernel.Fake
	// conntrack and speaker take the place of the fakes, if set.
	conntrack kernel.Conntrack
	speaker   bgp.Speaker

	agent *agent.Agent
	stop  context.CancelFunc
	done  chan error

	mu    sync.Mutex
	calls []datastore.Call // writes to the store
	fault func(datastore.Call) error
}

// alone runs a test with a node that no agent runs on yet.
func alone(t *testing.T, test func(*testing.T, *solo)) {
	synctest.Test(t, func(t *testing.T) {
		s := &solo{t: t, store: datastore.NewMemory(), fabric: bgp.NewFabric(), kernel: kernel.NewFake()}
		dir := t.TempDir()
		s.cfg = agent.Config{
			Node: "n1", Version: "test",
			IPv4: netip.MustParsePrefix("192.0.2.11/24"), IPv6: netip.MustParsePrefix("2001:db8::11/64"),
			Journal: filepath.Join(dir, "journal"), Spool: filepath.Join(dir, "spool"),
			Reserve: 4, CoolDown: 5 * time.Second, Resync: time.Minute,
		}
		s.kernel.SetLink(kernel.Link{Name: "eth0", MTU: 1500, Up: true})
		for _, p := range []netip.Prefix{s.cfg.IPv4, s.cfg.IPv6} {
			s.kernel.AddAddr(kernel.Addr{Link: "eth0", Prefix: p})
		}
		s.create(&v1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "pods"}, Spec: v1.IPPoolSpec{CIDR: "10.244.0.0/16"}})
		s.create(&v1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "pods6"}, Spec: v1.IPPoolSpec{CIDR: "fd00:244::/64"}})
		s.store.Inject(s.note)
		defer s.halt()
		test(t, s)
	})
}

func (s *solo) note(call datastore.Call) datastore.Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if call.Verb != datastore.VerbGet && call.Verb != datastore.VerbList {
		s.calls = append(s.calls, call)
	}
	if s.fault == nil {
		return datastore.Fault{}
	}
	return datastore.Fault{Before: s.fault(call)}
}

// fail lets calls of the store fail as f says; nil: none does.
func (s *solo) fail(f func(datastore.Call) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// written returns how often objects of a kind were written or deleted since it
// was last asked for any kind.
func (s *solo) written(kind string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		if c.Key.Kind == kind {
			n++
		}
	}
	s.calls = nil
	return n
}

func (s *solo) create(o v1.Object) {
	s.t.Helper()
	o.Default()
	if err := v1.Check(o); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.store.Create(s.t.Context(), o); err != nil {
		s.t.Fatal(err)
	}
}

// start starts the agent.
func (s *solo) start() {
	s.t.Helper()
	s.cfg.Log = slog.New(slog.NewTextHandler(s.t.Output(), nil))
	drv := agent.Drivers{
		Store: s.store, Kernel: tablesOf(s.kernel), Host: s.kernel, Conntrack: s.kernel, Pods: s.kernel, Speaker: s.speaker, Packets: packetsOf(s.kernel),
	}
	if s.conntrack != nil {
		drv.Conntrack = s.conntrack
	}
	if drv.Speaker == nil {
		drv.Speaker = s.fabric.Speaker("n1", netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("2001:db8::11"))
	}
	a, err := agent.New(s.cfg, drv)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.agent, s.stop, s.done = a, stop, make(chan error, 1)
	go func() { s.done <- a.Run(ctx) }()
}

// halt stops the agent, if it runs.
func (s *solo) halt() {
	s.t.Helper()
	if s.stop == nil {
		return
	}
	s.stop()
	if err := <-s.done; err != nil {
		s.t.Errorf("agent: %v", err)
	}
	s.stop = nil
}

// settle gives the agent some time.
func (s *solo) settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// ask asks the agent as the plug-in does, for at most so long.
func (s *solo) ask(req protocol.Request, d time.Duration) protocol.Response {
	ctx, cancel := context.WithTimeout(s.t.Context(), d)
	defer cancel()
	return s.agent.CNI(ctx, req)
}

// want holds that an answer has a code; "" for success.
func want(t *testing.T, what string, resp protocol.Response, code protocol.Code) {
	t.Helper()
	switch {
	case resp.Error == nil && code != "":
		t.Errorf("%s: success, want %s", what, code)
	case resp.Error != nil && resp.Error.Code != code:
		t.Errorf("%s: %s: %s, want %q", what, resp.Error.Code, resp.Error.Message, code)
	}
}

// add attaches a pod in full.
func (s *solo) add(pod string) protocol.Response {
	s.t.Helper()
	return s.attach(request(protocol.VerbAdd, pod))
}

// attach attaches the pod of an ADD in full.
func (s *solo) attach(req protocol.Request) protocol.Response {
	s.t.Helper()
	resp := s.ask(req, 20*time.Second)
	want(s.t, "ADD "+req.Pod, resp, "")
	if _, err := s.kernel.Attach(s.t.Context(), attachment(req, resp)); err != nil {
		s.t.Fatal(err)
	}
	want(s.t, "READY "+req.Pod, s.ask(request(protocol.VerbReady, req.Pod), 20*time.Second), "")
	return resp
}

func (s *solo) node() *v1.Node {
	s.t.Helper()
	o, err := s.store.Get(s.t.Context(), datastore.Key{Kind: "Node", Name: "n1"})
	if errors.Is(err, datastore.ErrNotFound) {
		return nil
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return o.(*v1.Node)
}

// status returns the NodeStatus in the store; nil: there is none.
func (s *solo) status() *v1.NodeStatus {
	s.t.Helper()
	o, err := s.store.Get(s.t.Context(), datastore.Key{Kind: "NodeStatus", Name: "n1"})
	if err != nil {
		return nil
	}
	return o.(*v1.NodeStatus)
}
