package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.network/cairn/lab"
	"cairn.network/cairn/lab/process"
)

// left returns what there still is of a lab outside itself: processes, mounts
// and files.
func left(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	ps, err := process.Marked(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range ps {
		found = append(found, "a process")
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir+"/") {
			found = append(found, "mount "+line)
		}
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		found = append(found, "files")
	}
	return found
}

// hostLinks returns the names of the links of the host itself.
func hostLinks(t *testing.T) string {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range links {
		names = append(names, l.Name)
	}
	return strings.Join(names, " ")
}

func TestDown(t *testing.T) {
	t.Parallel()
	links := hostLinks(t)
	tests := []struct {
		name  string
		spoil func(t *testing.T, l *lab.Lab, dir string)
	}{
		{"everything runs", func(*testing.T, *lab.Lab, string) {}},
		{"everything was killed", func(t *testing.T, _ *lab.Lab, dir string) {
			if err := process.KillMarked(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
		}},
		{"the records are lost", func(t *testing.T, _ *lab.Lab, dir string) {
			for _, name := range []string{"lab.json", "hosts", "pods"} {
				if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"a program runs in a pod", func(t *testing.T, _ *lab.Lab, dir string) {
			cmd := exec.Command(filepath.Join(bin, "cairn-lab"), "--root", root, "--name", filepath.Base(dir), "exec", "default/a", "--", "sleep", "1000")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			go cmd.Wait()
			eventually(t, 10*time.Second, func() error {
				b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
				if err == nil && string(b) != "sleep\n" {
					err = errors.New("not in the pod yet")
				}
				return err
			})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := up(t, small)
			dir := filepath.Join(root, l.Name())
			if _, err := l.AddPod(t.Context(), lab.Pod{Namespace: "default", Name: "a", Node: "n1"}); err != nil {
				t.Fatal(err)
			}
			tt.spoil(t, l, dir)
			for range 2 { // the second time there is nothing left to do
				if err := lab.Down(t.Context(), root, l.Name()); err != nil {
					t.Fatal(err)
				}
			}
			if found := left(t, dir); len(found) > 0 {
				t.Errorf("left: %v", found)
			}
			if now := hostLinks(t); now != links {
				t.Errorf("the host has links %s, had %s", now, links)
			}
		})
	}
}

// TestDownAfterHalfAnUp kills the bringing up at moments spread over the time
// that it takes.
func TestDownAfterHalfAnUp(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "topology.yaml")
	if err := os.WriteFile(file, []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{"making namespaces", "starting etcd", "filling", "starting BGP", "starting the agents", "waiting"} {
		t.Run(step, func(t *testing.T) {
			name := "half-" + filepath.Base(t.TempDir())
			dir := filepath.Join(root, name)
			t.Cleanup(func() {
				if err := lab.Down(context.WithoutCancel(t.Context()), root, name); err != nil {
					t.Error(err)
				}
			})
			cmd := exec.Command(filepath.Join(bin, "cairn-lab"), "--root", root, "--name", name, "up", "-f", file)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var seen strings.Builder
			buf := make([]byte, 1024)
			for !strings.Contains(seen.String(), step) {
				n, err := out.Read(buf)
				seen.Write(buf[:n])
				if err != nil {
					t.Fatalf("up ended before %q: %s", step, seen.String())
				}
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			if err := lab.Down(t.Context(), root, name); err != nil {
				t.Fatal(err)
			}
			if found := left(t, dir); len(found) > 0 {
				t.Errorf("left: %v", found)
			}
		})
	}
}

// TestLabsSideBySide has two labs with the same addresses at once.
func TestLabsSideBySide(t *testing.T) {
	t.Parallel()
	var labs []*lab.Lab
	t.Run("first", func(t *testing.T) {
		labs = append(labs, up(t, small))
		t.Run("second", func(t *testing.T) {
			labs = append(labs, up(t, small))
			for _, l := range labs {
				for _, node := range []string{"n1", "n2"} {
					if _, err := l.AddPod(t.Context(), lab.Pod{Namespace: "default", Name: node + "-a", Node: node}); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, l := range labs {
				m, err := l.Check(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if failed := m.Failed(); len(failed) > 0 {
					t.Errorf("%s: %+v", l.Name(), failed)
				}
			}
			if err := lab.Down(t.Context(), root, labs[1].Name()); err != nil {
				t.Fatal(err)
			}
			m, err := labs[0].Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if failed := m.Failed(); len(failed) > 0 {
				t.Errorf("after the other went: %+v", failed)
			}
		})
	})
}
