package agent_test

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"cairn.network/cairn/cni/protocol"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/kernel"
)

var sameAddrs = cmpopts.EquateComparable(netip.Addr{})

// TestVerbs follows a pod through its life.
func TestVerbs(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.start()
		req := request(protocol.VerbAdd, "one")
		first := s.ask(req, time.Minute) // waits for the agent
		want(t, "ADD", first, "")
		if !first.IPv4.IsValid() || !first.IPv6.IsValid() || first.HostLink != kernel.PodLink("default", "one", "eth0") || first.MTU != 1500 {
			t.Errorf("ADD answered %+v", first)
		}
		second := s.ask(req, time.Minute)
		if d := cmp.Diff(first, second, sameAddrs); d != "" {
			t.Errorf("a repeated ADD (-first +second):\n%s", d)
		}
		want(t, "STATUS", s.ask(request(protocol.VerbStatus, ""), time.Second), "")

		ready, check, del := request(protocol.VerbReady, "one"), request(protocol.VerbCheck, "one"), request(protocol.VerbDel, "one")
		resp := s.ask(ready, time.Second)
		want(t, "READY without the link", resp, protocol.CodeTimeout)
		if resp.Error != nil && !strings.Contains(resp.Error.Message, "has no link "+first.HostLink) {
			t.Errorf("READY without the link: %s", resp.Error.Message)
		}
		want(t, "CHECK without the link", s.ask(check, time.Second), protocol.CodeInternal)
		if _, err := s.kernel.Attach(t.Context(), attachment(req, first)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			resp := s.ask(ready, time.Second)
			want(t, "READY", resp, "")
			if d := cmp.Diff(first, resp, sameAddrs); d != "" {
				t.Errorf("READY answered otherwise than ADD:\n%s", d)
			}
		}
		for _, ip := range []netip.Addr{first.IPv4, first.IPv6} {
			if r := s.kernel.OurRoutes()[kernel.HostRoute(ip)]; !r.Hops.Uses(first.HostLink) {
				t.Errorf("after READY the route to %s is %s", ip, r)
			}
		}
		want(t, "CHECK", s.ask(check, time.Second), "")

		s.kernel.SetLink(kernel.Link{Name: first.HostLink, Kind: "veth", MTU: 1500, Alias: kernel.PodAlias(attachment(req, first))})
		synctest.Wait()
		resp = s.ask(check, time.Second)
		want(t, "CHECK with the link down", resp, protocol.CodeInternal)
		if resp.Error != nil && !strings.Contains(resp.Error.Message, "link is down") {
			t.Errorf("CHECK with the link down: %s", resp.Error.Message)
		}
		s.kernel.DelLink(first.HostLink)
		synctest.Wait()
		want(t, "READY for a vanished link", s.ask(ready, time.Second), protocol.CodeTimeout)

		for range 2 {
			want(t, "DEL", s.ask(del, time.Second), "")
		}
		synctest.Wait()
		if d := cmp.Diff([]netip.Addr{first.IPv4, first.IPv6}, s.kernel.Flushed(), sameAddrs); d != "" {
			t.Errorf("connections forgotten (-want +got):\n%s", d)
		}
		want(t, "READY after DEL", s.ask(ready, time.Second), protocol.CodeUnknown)
		want(t, "CHECK after DEL", s.ask(check, time.Second), protocol.CodeUnknown)
		want(t, "a verb that is none", s.ask(protocol.Request{Verb: "HUG"}, time.Second), protocol.CodeInvalid)
	})
}

// TestRefusedAdd holds that each reason why there is no address has its code.
func TestRefusedAdd(t *testing.T) {
	for _, test := range []struct {
		name  string
		alter func(*solo)
		req   func(*protocol.Request)
		code  protocol.Code
	}{
		{"no container", nil, func(r *protocol.Request) { r.ContainerID = "" }, protocol.CodeInvalid},
		{"a pool that isn't there", nil, func(r *protocol.Request) { r.Pools = []string{"none"} }, protocol.CodeInvalid},
		{"a pool of the other family", nil, func(r *protocol.Request) { r.IPv6, r.Pools = true, []string{"pods"} }, protocol.CodeInvalid},
		{"no pool", func(s *solo) {
			for _, name := range []string{"pods", "pods6"} {
				if err := s.store.Delete(s.t.Context(), datastore.Key{Kind: "IPPool", Name: name}, ""); err != nil {
					s.t.Fatal(err)
				}
			}
		}, nil, protocol.CodeExhausted},
		{"the datastore away and nothing in reserve", func(s *solo) {
			s.settle(10 * time.Second)
			s.store.SetDown(datastore.ErrUnavailable)
			for i := range s.cfg.Reserve {
				s.ask(request(protocol.VerbAdd, "earlier-"+string(rune('a'+i))), time.Minute)
			}
		}, nil, protocol.CodeUnavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			alone(t, func(t *testing.T, s *solo) {
				s.start()
				s.settle(time.Second)
				if test.alter != nil {
					test.alter(s)
					s.settle(time.Second)
				}
				req := request(protocol.VerbAdd, "one")
				if test.req != nil {
					test.req(&req)
				}
				want(t, "ADD", s.ask(req, time.Minute), test.code)
			})
		})
	}
}

// TestNotReady holds what an agent answers that can't take over yet.
func TestNotReady(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.start()
		s.add("old")
		gone := s.add("gone")
		s.halt()
		s.store.SetDown(datastore.ErrUnavailable)
		s.start()
		synctest.Wait()
		resp := s.ask(request(protocol.VerbStatus, ""), time.Second)
		want(t, "STATUS", resp, protocol.CodeUnavailable)
		if resp.Error != nil && !strings.Contains(resp.Error.Message, "datastore") {
			t.Errorf("STATUS: %s", resp.Error.Message)
		}
		start := time.Now()
		want(t, "ADD", s.ask(request(protocol.VerbAdd, "new"), time.Minute), protocol.CodeUnavailable)
		if d := time.Since(start); d > 15*time.Second {
			t.Errorf("ADD waited %s", d)
		}
		want(t, "CHECK", s.ask(request(protocol.VerbCheck, "old"), time.Second), protocol.CodeUnavailable)
		want(t, "GC", s.ask(protocol.Request{Verb: protocol.VerbGC, Network: "cairn"}, time.Second), protocol.CodeUnavailable)
		want(t, "READY", s.ask(request(protocol.VerbReady, "old"), time.Second), protocol.CodeTimeout)
		s.kernel.DelLink(gone.HostLink)
		want(t, "DEL", s.ask(request(protocol.VerbDel, "gone"), time.Second), "")

		// An ADD that waits is answered when the agent is ready.
		time.AfterFunc(5*time.Second, func() { s.store.SetDown(nil) })
		want(t, "ADD", s.ask(request(protocol.VerbAdd, "new"), time.Minute), "")
		want(t, "READY", s.ask(request(protocol.VerbReady, "old"), time.Second), "")
	})
}

// TestAddWithoutCaller holds that nothing is given to a caller who is gone.
func TestAddWithoutCaller(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.start()
		s.settle(time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if resp := s.agent.CNI(ctx, request(protocol.VerbAdd, "one")); resp.Error == nil {
			t.Error("ADD for nobody succeeded")
		}
		want(t, "CHECK", s.ask(request(protocol.VerbCheck, "one"), time.Second), protocol.CodeUnknown)
	})
}

// TestSlowAdd holds that the addresses of an ADD under way stay its own, however
// often the agent looks for what has no link.
func TestSlowAdd(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.cfg.Resync = time.Second
		s.start()
		req := request(protocol.VerbAdd, "one")
		resp := s.ask(req, time.Minute)
		time.Sleep(45 * time.Second) // the longest that a plug-in may take
		if _, err := s.kernel.Attach(t.Context(), attachment(req, resp)); err != nil {
			t.Fatal(err)
		}
		want(t, "READY", s.ask(request(protocol.VerbReady, "one"), time.Second), "")
		s.kernel.DelLink(resp.HostLink)
		s.settle(5 * time.Minute)
		want(t, "CHECK long after the link went", s.ask(request(protocol.VerbCheck, "one"), time.Second), protocol.CodeUnknown)
	})
}

// TestGC holds that only what the runtime does not know and no link carries is
// freed.
func TestGC(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.start()
		s.add("valid")
		held := s.add("held") // its namespace is alive
		ended := request(protocol.VerbAdd, "ended")
		ended.Netns = "/nowhere" // and its link is about to go
		endedResp := s.ask(ended, time.Minute)
		stuck := request(protocol.VerbAdd, "stuck")
		stuck.Netns = "/nowhere" // but somebody keeps the namespace alive
		stuckResp := s.ask(stuck, time.Minute)
		for req, resp := range map[*protocol.Request]protocol.Response{&ended: endedResp, &stuck: stuckResp} {
			if _, err := s.kernel.Attach(t.Context(), attachment(*req, resp)); err != nil {
				t.Fatal(err)
			}
		}
		want(t, "ADD", s.ask(request(protocol.VerbAdd, "failed"), time.Minute), "") // never attached
		foreign := request(protocol.VerbAdd, "foreign")
		foreign.Network = "other"
		want(t, "ADD", s.ask(foreign, time.Minute), "")
		s.settle(time.Second)

		time.AfterFunc(200*time.Millisecond, func() { s.kernel.DelLink(endedResp.HostLink) })
		want(t, "GC", s.ask(protocol.Request{
			Verb: protocol.VerbGC, Network: "cairn", Valid: []protocol.Sandbox{{ContainerID: "container-valid", Interface: "eth0"}},
		}, 30*time.Second), "")
		for pod, code := range map[string]protocol.Code{
			"valid": "", "held": "", "stuck": "", "ended": protocol.CodeUnknown, "failed": protocol.CodeUnknown, "foreign": protocol.CodeInternal,
		} {
			want(t, "CHECK "+pod, s.ask(request(protocol.VerbCheck, pod), time.Second), code)
		}
		if _, ok := s.kernel.OurRoutes()[kernel.HostRoute(held.IPv4)]; !ok {
			t.Error("a live pod lost its route")
		}
	})
}

// TestSpool holds that DELs that were left for the agent are carried out: those
// found at the start before it is ready, later ones in time.
func TestSpool(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.start()
		for _, pod := range []string{"early", "late", "kept"} {
			s.add(pod)
		}
		s.halt()
		if err := os.MkdirAll(s.cfg.Spool, 0o700); err != nil {
			t.Fatal(err)
		}
		leave := func(name string, text []byte) {
			if err := os.WriteFile(filepath.Join(s.cfg.Spool, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		leaveDel := func(pod string) {
			req := request(protocol.VerbDel, pod)
			s.kernel.DelLink(kernel.PodLink(req.Namespace, req.Pod, req.Interface))
			text, err := json.Marshal(req)
			if err != nil {
				t.Fatal(err)
			}
			leave(pod+".json", text)
		}
		leaveDel("early")
		leave("torn.json", []byte(`{"verb":"DE`))
		leave("other.json", []byte(`{"verb":"ADD","containerID":"container-kept","interface":"eth0"}`))
		leave("nobody.json", []byte(`{"verb":"DEL"}`))
		leave(".new-1", []byte(`{"verb":"DEL","containerID":"container-kept","interface":"eth0"}`)) // not finished
		s.start()
		want(t, "ADD", s.ask(request(protocol.VerbAdd, "new"), time.Minute), "")
		want(t, "CHECK", s.ask(request(protocol.VerbCheck, "early"), time.Second), protocol.CodeUnknown)
		leaveDel("late")
		s.settle(2 * time.Minute)
		want(t, "CHECK", s.ask(request(protocol.VerbCheck, "late"), time.Second), protocol.CodeUnknown)
		want(t, "CHECK", s.ask(request(protocol.VerbCheck, "kept"), time.Second), "")
		var left []string
		files, err := os.ReadDir(s.cfg.Spool)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			left = append(left, f.Name())
		}
		if d := cmp.Diff([]string{".new-1", "nobody.json.bad", "other.json.bad", "torn.json.bad"}, left); d != "" {
			t.Errorf("left in the spool (-want +got):\n%s", d)
		}
	})
}

// stuck is a table of connections that does not answer.
type stuck struct {
	kernel.Conntrack
	asked, answer chan struct{}
}

func (s stuck) Flush(context.Context, ...netip.Addr) error {
	s.asked <- struct{}{}
	<-s.answer
	return nil
}

// TestForgettingIsApart holds that the loop goes on while connections are
// forgotten.
func TestForgettingIsApart(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		table := stuck{asked: make(chan struct{}, 10), answer: make(chan struct{})}
		s.conntrack = table
		s.start()
		kept, gone := s.add("kept"), s.add("gone")
		s.kernel.DelLink(gone.HostLink)
		<-table.asked
		route := kernel.HostRoute(kept.IPv4)
		s.kernel.DropRoute(route)
		s.settle(time.Second)
		if _, ok := s.kernel.OurRoutes()[route]; !ok {
			t.Error("a route was not healed while connections were being forgotten")
		}
		close(table.answer)
	})
}

// TestDelWithoutCaller holds that what a DEL does is done in full, though nobody
// waits for it any more.
func TestDelWithoutCaller(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.start()
		resp := s.add("one")
		s.kernel.DelLink(resp.HostLink)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s.agent.CNI(ctx, request(protocol.VerbDel, "one"))
		want(t, "CHECK", s.ask(request(protocol.VerbCheck, "one"), time.Second), protocol.CodeUnknown)
		synctest.Wait()
		if d := cmp.Diff([]netip.Addr{resp.IPv4, resp.IPv6}, s.kernel.Flushed(), sameAddrs); d != "" {
			t.Errorf("connections forgotten (-want +got):\n%s", d)
		}
	})
}

// TestReadyIsProtected holds that READY waits for the parameters of the pod's
// link, the check of its source addresses among them.
func TestReadyIsProtected(t *testing.T) {
	alone(t, func(t *testing.T, s *solo) {
		s.start()
		req := request(protocol.VerbAdd, "one")
		resp := s.ask(req, time.Minute)
		v4, v6 := kernel.Sysctl("net/ipv4/conf/"+resp.HostLink+"/rp_filter"), kernel.Sysctl("net/ipv6/conf/"+resp.HostLink+"/proxy_ndp")
		s.kernel.Fail("set", v4, kernel.ErrPermission)
		s.kernel.Fail("set", v6, kernel.ErrUnsupported) // a kernel without IPv6
		if _, err := s.kernel.Attach(t.Context(), attachment(req, resp)); err != nil {
			t.Fatal(err)
		}
		ready := s.ask(request(protocol.VerbReady, "one"), 5*time.Second)
		want(t, "READY", ready, protocol.CodeTimeout)
		if ready.Error != nil && !strings.Contains(ready.Error.Message, string(v4)) {
			t.Errorf("READY: %s", ready.Error.Message)
		}
		want(t, "CHECK", s.ask(request(protocol.VerbCheck, "one"), time.Second), protocol.CodeInternal)
		s.kernel.Fail("set", v4, nil)
		want(t, "READY", s.ask(request(protocol.VerbReady, "one"), time.Minute), "")
	})
}
