package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/lab/topology"
)

func parse(t *testing.T, file string) *topology.Topology {
	t.Helper()
	topo, err := topology.Parse([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	return topo
}

func plain(t *testing.T) *topology.Topology {
	t.Helper()
	b, err := topology.Named(topology.Plain)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(b))
}

// saved returns a lab of which there is the record alone.
func saved(t *testing.T, root, name string) *Lab {
	t.Helper()
	l := &Lab{Topology: plain(t), dir: filepath.Join(root, name), bin: "/bin"}
	if err := os.MkdirAll(l.podsDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.save(); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestOpen(t *testing.T) {
	root := t.TempDir()
	if _, err := Open(root, ""); !errors.Is(err, ErrNotUp) {
		t.Errorf("the only lab, of none: %v", err)
	}
	if _, err := Open(filepath.Join(root, "none"), ""); !errors.Is(err, ErrNotUp) {
		t.Errorf("without the folder: %v", err)
	}
	want := saved(t, root, "a")
	for _, name := range []string{"a", ""} {
		got, err := Open(root, name)
		if err != nil || got.Name() != "a" || len(got.Topology.Nodes) != len(want.Topology.Nodes) {
			t.Errorf("Open %q: %+v, %v", name, got, err)
		}
	}
	if _, err := Open(root, "b"); !errors.Is(err, ErrNotUp) {
		t.Errorf("one that is not there: %v", err)
	}
	saved(t, root, "b")
	if _, err := Open(root, ""); err == nil || !strings.Contains(err.Error(), "a, b") {
		t.Errorf("the only lab, of two: %v", err)
	}
	if err := os.WriteFile(filepath.Join(root, "b", "lab.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(root, "b"); err == nil || errors.Is(err, ErrNotUp) {
		t.Errorf("with half a record: %v", err)
	}
}

func TestUpRefuses(t *testing.T) {
	root, bin := t.TempDir(), t.TempDir()
	o := Options{Root: root, Bin: bin, Progress: func(string) {}}
	topo := plain(t)
	if _, err := Up(t.Context(), topo, o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without programs: %v", err)
	}
	for _, name := range []string{"cairn", "cairn-cni", "cairn-lab"} {
		if err := os.WriteFile(filepath.Join(bin, name), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	saved(t, root, topo.Name)
	if l, err := Up(t.Context(), topo, o); !errors.Is(err, ErrUp) || l != nil {
		t.Errorf("of a name that is taken: %v, %v", l, err)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	shared1, err := lock(t.Context(), dir, false)
	if err != nil {
		t.Fatal(err)
	}
	shared2, err := lock(t.Context(), dir, false)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := lock(short, dir, true); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("exclusive while others have it: %v", err)
	}
	shared1()
	shared2()
	exclusive, err := lock(t.Context(), dir, true)
	if err != nil {
		t.Fatal(err)
	}
	// Whoever waited for a lab that is removed meanwhile learns that it is gone.
	waiting := make(chan error)
	go func() {
		_, err := lock(t.Context(), dir, false)
		waiting <- err
	}()
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	exclusive()
	if err := <-waiting; !errors.Is(err, ErrNotUp) {
		t.Errorf("after the folder was removed: %v", err)
	}
}

func TestUntil(t *testing.T) {
	tries := 0
	if err := until(t.Context(), "x", func(context.Context) error {
		if tries++; tries < 3 {
			return errors.New("not yet")
		}
		return nil
	}); err != nil || tries != 3 {
		t.Errorf("%v after %d tries", err, tries)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, errors.New("took too long"))
	defer cancel()
	err := until(ctx, "wait for x", func(context.Context) error { return errors.New("still no x") })
	if want := "wait for x: took too long: still no x"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	tries = 0
	err = until(t.Context(), "x", func(context.Context) error { tries++; return &finalError{errors.New("gone")} })
	if err == nil || tries != 1 {
		t.Errorf("what can't get better: %v after %d tries", err, tries)
	}
}

func TestEstablished(t *testing.T) {
	peer := func(kind, name, state string) v1.BGPPeerStatus {
		return v1.BGPPeerStatus{Type: kind, Name: name, State: state, Address: "10.0.0.1", LastError: "refused"}
	}
	up := metav1.Condition{Type: v1.ConditionBGP, Status: "True"}
	router := peer(v1.PeerTypeNode, "tor", "Established")
	tests := []struct {
		name  string
		peers []v1.BGPPeerStatus
		cond  metav1.Condition
		want  string // in the error; empty: there is none
	}{
		{"all", []v1.BGPPeerStatus{router, peer(v1.PeerTypeMesh, "n2", "Established")}, up, ""},
		{"two sessions with one node", []v1.BGPPeerStatus{peer(v1.PeerTypeMesh, "n2", "Established"), peer(v1.PeerTypeMesh, "n2", "Established")}, up, ""},
		{"none yet", nil, up, "sessions with 0 of 1 other nodes"},
		{"the router alone", []v1.BGPPeerStatus{router}, up, "sessions with 0 of 1"},
		{"one not", []v1.BGPPeerStatus{peer(v1.PeerTypeMesh, "n2", "Active")}, up, "with n2 (10.0.0.1) is Active: refused"},
		{"condition false", []v1.BGPPeerStatus{peer(v1.PeerTypeMesh, "n2", "Established")}, metav1.Condition{Type: v1.ConditionBGP, Status: "False", Message: "why"}, "not BGPEstablished: why"},
		{"no condition", []v1.BGPPeerStatus{peer(v1.PeerTypeMesh, "n2", "Established")}, metav1.Condition{}, "no such condition yet"},
	}
	l := &Lab{Topology: parse(t, `racks: [{name: r1, subnets: [10.1.0.0/24], nodes: 2}]`)}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &v1.NodeStatus{}
			s.Status.BGP.Peers, s.Status.Conditions = tt.peers, []metav1.Condition{tt.cond}
			err := l.established(s)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestPodRecords(t *testing.T) {
	l := saved(t, t.TempDir(), "a")
	if _, err := l.Pod("default", "a"); !errors.Is(err, ErrUnknown) {
		t.Errorf("a pod that never was: %v", err)
	}
	b := Pod{Namespace: "default", Name: "b", Node: "n1", ContainerID: "1"}
	a := Pod{Namespace: "default", Name: "a", Node: "n2", ContainerID: "2", Labels: map[string]string{"k": "v"}}
	for _, p := range []Pod{b, a} {
		if err := l.savePod(p, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.savePod(a, true); !errors.Is(err, os.ErrExist) {
		t.Errorf("the second pod of a name: %v", err)
	}
	a.Node = "n3"
	if err := l.savePod(a, false); err != nil {
		t.Fatal(err)
	}
	got, err := l.Pods()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]Pod{a, b}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	entries, err := os.ReadDir(l.podsDir())
	if err != nil || len(entries) != 2 {
		t.Errorf("files: %v, %v; want the two records", entries, err)
	}
	for _, p := range []Pod{{Namespace: "Default", Name: "a", Node: "n1"}, {Namespace: "default", Name: "a.b", Node: "n1"}, {Namespace: "default", Name: "a", Node: "n9"}} {
		if _, err := l.AddPod(t.Context(), p); err == nil {
			t.Errorf("accepted pod %+v", p)
		}
	}
}

func TestWhere(t *testing.T) {
	l := saved(t, t.TempDir(), "a")
	if err := l.savePod(Pod{Namespace: "default", Name: "a", Netns: "/x"}, true); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, want string }{
		{"n1", l.dir + "/netns/n1"},
		{"tor", l.dir + "/netns/tor"},
		{"etcd", l.dir + "/netns/etcd"},
		{"fabric", l.dir + "/netns/fabric"},
		{"default/a", "/x"},
		{"default/b", ""},
		{"n9", ""},
		{"", ""},
	}
	for _, tt := range tests {
		got, err := l.Where(tt.name)
		if got != tt.want || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
}
