package ipam

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func assignment(id, addrs string) Assignment {
	as := Assignment{Handle: Handle{ContainerID: id, Interface: "eth0"}, Namespace: "default", Pod: id, Labels: map[string]string{"app": "web"},
		ServiceAccount: "web", Ports: []NamedPort{{Name: "http", Protocol: "TCP", Port: 8080}, {Name: "dns", Protocol: "UDP", Port: 53}}}
	for _, text := range strings.Fields(addrs) {
		if ip := netip.MustParseAddr(text); ip.Is4() {
			as.IPv4 = ip
		} else {
			as.IPv6 = ip
		}
	}
	return as
}

func mustOpen(t testing.TB, d disk, path string) *journal {
	t.Helper()
	j, err := openJournal(d, path, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.close() })
	return j
}

// reopen closes a journal and reads what it left.
func reopen(t testing.TB, j *journal) *journal {
	t.Helper()
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	return mustOpen(t, osDisk{}, j.path)
}

var sameAddrs = cmpopts.EquateComparable(netip.Addr{})

func TestJournalKeepsWhatItAccepted(t *testing.T) {
	j := mustOpen(t, osDisk{}, filepath.Join(t.TempDir(), "state", "journal"))
	now := time.Now()
	a, b, c := assignment("a", "10.0.0.1 fd00::1"), assignment("b", "10.0.0.2"), assignment("c", "fd00::3")
	for _, r := range []record{use(a), use(b), use(c), unuse(b, now), {Complete: true}} {
		if err := j.commit(r); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second time from the rewritten file
		j = reopen(t, j)
		want := map[Handle]Assignment{a.Handle: a, c.Handle: c}
		if d := cmp.Diff(want, j.state.uses, sameAddrs); d != "" {
			t.Error(d)
		}
		if at := j.state.resting[b.IPv4]; !at.Equal(now) || !j.state.complete {
			t.Errorf("10.0.0.2 rests since %v, want %v; complete %v", at, now, j.state.complete)
		}
	}
	for path, want := range map[string]os.FileMode{filepath.Dir(j.path): 0o700 | os.ModeDir, j.path: 0o600, j.path + ".lock": 0o600} {
		if fi, err := os.Stat(path); err != nil || fi.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", path, fi.Mode(), err, want)
		}
	}
}

// TestJournalOfBefore holds that records which know nothing of service accounts and
// ports are read as those of pods that have none.
func TestJournalOfBefore(t *testing.T) {
	const lines = `{"journal":1}
{"use":{"containerID":"c1","interface":"eth0","ipv4":"10.0.0.1","namespace":"default","pod":"a","labels":{"app":"web"}}}
`
	var text []byte
	for line := range strings.Lines(lines) {
		sum := crc32.Checksum([]byte(strings.TrimSuffix(line, "\n")), castagnoli)
		text = fmt.Appendf(text, "%08x %s", sum, line)
	}
	path := filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	want := Assignment{Handle: Handle{ContainerID: "c1", Interface: "eth0"}, IPv4: netip.MustParseAddr("10.0.0.1"),
		Namespace: "default", Pod: "a", Labels: map[string]string{"app": "web"}}
	j := mustOpen(t, osDisk{}, path)
	if d := cmp.Diff(map[Handle]Assignment{want.Handle: want}, j.state.uses, sameAddrs); d != "" || j.harm != nil {
		t.Errorf("harm %v (-want +got):\n%s", j.harm, d)
	}
}

func TestJournalIsOneProcessOnly(t *testing.T) {
	j := mustOpen(t, osDisk{}, filepath.Join(t.TempDir(), "journal"))
	if _, err := openJournal(osDisk{}, j.path, time.Minute); !errors.Is(err, ErrInUse) {
		t.Fatalf("got %v, want ErrInUse", err)
	}
	reopen(t, j)
}

func TestJournalDamage(t *testing.T) {
	a, b := assignment("a", "10.0.0.1"), assignment("b", "10.0.0.2")
	line := func(r record) string {
		text, err := r.appendLine(nil)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	head, useA, useB, done := line(record{Journal: 1}), line(use(a)), line(use(b)), line(record{Complete: true})
	flip := func(s string) string { return strings.Replace(s, "eth0", "eth1", 1) }
	tests := []struct {
		name, text string
		uses       string
		complete   bool
		harm       bool
	}{
		{"none", "", "", false, false},
		{"head only", head, "", false, false},
		{"whole", head + useA + useB + done, "a b", true, false},
		{"torn in the last line", head + done + useA + useB[:20], "a", true, false},
		{"torn before the line's end", head + done + useA + strings.TrimSuffix(useB, "\n"), "a b", true, false},
		{"torn to the line's start", head + done + useA, "a", true, false},
		{"zeros at the end", head + done + useA + strings.Repeat("\x00", 100), "a", true, false},
		{"two lines torn", head + done + flip(useA) + useB[:9], "", true, false},
		{"flipped bit in the middle", head + done + flip(useA) + useB, "b", false, true},
		{"line lost its end", head + done + strings.TrimSuffix(useA, "\n") + useB + line(use(assignment("c", "10.0.0.3"))), "c", false, true},
		{"no head", done + useA, "a", false, true},
		{"head alone is bad", flip("x" + head), "", false, true},
		{"head twice", head + useA + head + useB, "a b", false, true},
		{"garbage", "garbage\n", "", false, true},
		{"later use wins", head + useA + line(use(assignment("b", "10.0.0.1"))) + done, "b", true, false},
		{"used again by the same", head + useA + line(use(assignment("a", "10.0.0.9"))) + useB + done, "a b", true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			j := mustOpen(t, osDisk{}, path)
			var uses []string
			for _, id := range []string{"a", "b", "c"} {
				if _, ok := j.state.uses[Handle{ContainerID: id, Interface: "eth0"}]; ok {
					uses = append(uses, id)
				}
			}
			if got := strings.Join(uses, " "); got != tt.uses || len(j.state.uses) != len(uses) {
				t.Errorf("uses %q of %v, want %q", got, j.state.uses, tt.uses)
			}
			if j.state.complete != tt.complete || (j.harm != nil) != tt.harm {
				t.Errorf("complete %v, harm %v; want %v, %v", j.state.complete, j.harm, tt.complete, tt.harm)
			}
			if tt.harm {
				if kept, err := os.ReadFile(path + ".damaged"); err != nil || string(kept) != tt.text {
					t.Errorf("kept %q, %v", kept, err)
				}
			}
			if err := j.commit(use(assignment("z", "10.0.0.99"))); err != nil {
				t.Fatal(err)
			}
			if again := reopen(t, j); again.harm != nil || len(again.state.uses) != len(uses)+1 {
				t.Errorf("after repair: %v, %v", again.harm, again.state.uses)
			}
		})
	}
}

func TestJournalOfNewerFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	text, _ := record{Journal: journalVersion + 1}.appendLine(nil)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openJournal(osDisk{}, path, time.Minute); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Fatalf("got %v", err)
	}
	if kept, _ := os.ReadFile(path); !bytes.Equal(kept, text) {
		t.Error("it was changed")
	}
}

// slowDisk counts syncs and lets the test hold them.
type slowDisk struct {
	osDisk
	syncs atomic.Int32
	gate  chan struct{} // a sync waits for it; nil: none does
	fail  atomic.Bool   // syncs fail
}

type slowFile struct {
	file
	disk *slowDisk
}

func (d *slowDisk) Create(path string) (file, error) {
	f, err := d.osDisk.Create(path)
	return &slowFile{f, d}, err
}

func (f *slowFile) Sync() error {
	f.disk.syncs.Add(1)
	if f.disk.gate != nil {
		<-f.disk.gate
	}
	if f.disk.fail.Load() {
		return errors.New("input/output error")
	}
	return f.file.Sync()
}

func TestJournalGroupCommit(t *testing.T) {
	d := &slowDisk{}
	j := mustOpen(t, d, filepath.Join(t.TempDir(), "journal"))
	d.syncs.Store(0)
	d.gate = make(chan struct{})
	var wg sync.WaitGroup
	commit := func(i int) {
		if err := j.commit(use(assignment(fmt.Sprint(i), fmt.Sprintf("10.0.0.%d", i)))); err != nil {
			t.Error(err)
		}
	}
	wg.Go(func() { commit(0) })
	for d.syncs.Load() == 0 {
		runtime.Gosched()
	}
	for i := 1; i < 100; i++ {
		wg.Go(func() { commit(i) })
	}
	for waiting := 0; waiting < 99; {
		runtime.Gosched()
		j.mu.Lock()
		if j.next != nil {
			waiting = len(j.next.records)
		}
		j.mu.Unlock()
	}
	close(d.gate)
	wg.Wait()
	if n := d.syncs.Load(); n != 2 {
		t.Errorf("%d syncs for 1 record and 99 more, want 2", n)
	}
	if got := len(reopen(t, j).state.uses); got != 100 {
		t.Errorf("%d uses, want 100", got)
	}
}

func TestJournalCompaction(t *testing.T) {
	j := mustOpen(t, osDisk{}, filepath.Join(t.TempDir(), "journal"))
	keep := assignment("keep", "10.0.0.1")
	if err := j.commit(use(keep), record{Complete: true}); err != nil {
		t.Fatal(err)
	}
	before := time.Now().Add(-time.Hour) // so that nothing rests
	for i := range compactAt {
		as := assignment(fmt.Sprint(i), "10.0.0.2")
		if err := j.commit(use(as), unuse(as, before)); err != nil {
			t.Fatal(err)
		}
	}
	if j.length > compactAt+2 {
		t.Errorf("%d records in the file", j.length)
	}
	j = reopen(t, j)
	if d := cmp.Diff(map[Handle]Assignment{keep.Handle: keep}, j.state.uses, sameAddrs); d != "" || !j.state.complete {
		t.Errorf("complete %v, uses:\n%s", j.state.complete, d)
	}
}

func TestJournalAfterFailedWrite(t *testing.T) {
	d := &slowDisk{}
	j := mustOpen(t, d, filepath.Join(t.TempDir(), "journal"))
	if err := j.commit(use(assignment("a", "10.0.0.1"))); err != nil {
		t.Fatal(err)
	}
	d.fail.Store(true)
	for range 2 { // first the write fails, then the rewrite
		if err := j.commit(use(assignment("b", "10.0.0.2"))); err == nil {
			t.Fatal("no error")
		}
	}
	if err := j.repair(); err == nil {
		t.Fatal("repaired though the disk fails")
	}
	d.fail.Store(false)
	if err := j.commit(use(assignment("c", "10.0.0.2"))); err != nil {
		t.Fatal(err)
	}
	got := reopen(t, j).state.uses
	if _, refused := got[Handle{"b", "eth0"}]; refused || len(got) != 2 {
		t.Errorf("uses %v, want those of a and c", got)
	}
}

func TestClosedJournal(t *testing.T) {
	j := mustOpen(t, osDisk{}, filepath.Join(t.TempDir(), "journal"))
	reopen(t, j)
	if err := j.commit(use(assignment("a", "10.0.0.1"))); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if err := j.close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func FuzzParseLine(f *testing.F) {
	for _, r := range []record{{Journal: 1}, use(assignment("a", "10.0.0.1 fd00::1")), unuse(assignment("a", "fd00::1"), noon), {Complete: true}} {
		line, err := r.appendLine(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.TrimSuffix(line, []byte("\n")))
	}
	f.Add([]byte("00000000 {}"))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := parseLine(line)
		if err != nil {
			return
		}
		newLedger().apply(r)
		text, err := r.appendLine(nil)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseLine(bytes.TrimSuffix(text, []byte("\n"))); err != nil {
			t.Fatalf("%+v: %v", again, err)
		}
	})
}
