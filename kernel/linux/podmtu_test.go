//go:build linux

package linux

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// TestMTUWithoutAdmin holds that an agent which can't enter a pod's network
// namespace says what it lacks, and leaves both sides as they are.
func TestMTUWithoutAdmin(t *testing.T) {
	w := newWorld(t)
	a := testAttachment(w.NewPod(t), "c1")
	if _, err := w.Attach(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	smaller := a
	smaller.MTU = 1300
	smaller.Netns = strings.Replace(a.Netns, "self", strconv.Itoa(os.Getpid()), 1)
	text, err := json.Marshal(smaller)
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan string, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := errors.Join(unix.Setns(int(w.netns.Fd()), unix.CLONE_NEWNET), unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_ADMIN, 0, 0, 0)); err != nil {
			out <- err.Error()
			return
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestSetMTUProcess$")
		cmd.Env = append(os.Environ(), "CAIRN_TEST_ATTACHMENT="+string(text))
		said, err := cmd.CombinedOutput()
		out <- fmt.Sprintf("%s%v", said, err)
	}()
	if got := <-out; !strings.Contains(got, "permission denied") || !strings.Contains(got, "needs CAP_SYS_ADMIN") {
		t.Errorf("SetMTU: %s", got)
	}
	if err := w.Check(t.Context(), a); err != nil {
		t.Error(err)
	}
}

// TestSetMTUProcess is the process of TestMTUWithoutAdmin; by itself it tests
// nothing.
func TestSetMTUProcess(t *testing.T) {
	text := os.Getenv("CAIRN_TEST_ATTACHMENT")
	if text == "" {
		return
	}
	var a kernel.Attachment
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		t.Fatal(err)
	}
	fmt.Println(NewAttacher().SetMTU(t.Context(), a))
}

// TestMTUOfPodThatEnds holds what is said of a pod whose namespace is gone.
func TestMTUOfPodThatEnds(t *testing.T) {
	w := newWorld(t)
	a := testAttachment(w.NewPod(t), "c1")
	if _, err := w.Attach(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	gone := a
	gone.Netns += "-gone"
	if err := w.SetMTU(t.Context(), gone); err == nil || !strings.Contains(err.Error(), "set MTU of pod default/web to 1450: open network namespace") {
		t.Errorf("SetMTU: %v", err)
	}
}
