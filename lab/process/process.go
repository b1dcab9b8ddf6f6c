// Package process starts daemons that outlive their starter, and finds and ends
// them again.
//
// It guarantees that nothing but the marked processes is ever signalled: each
// daemon and all that it starts carry a mark in their environment, a process is
// known by its ID and its start time together, and the mark is read again right
// before a signal is sent, through a handle that can't be reused (pidfd).
package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cairn.network/cairn/lab/netns"
)

// MarkVariable is the environment variable that carries the mark.
const MarkVariable = "CAIRN_LAB"

// Spec says what to start.
type Spec struct {
	Path  string   // of the program
	Args  []string // without the program's name
	Env   []string // all of it but the mark, KEY=VALUE
	Mark  string   // see MarkVariable; never empty
	Netns string   // path of the network namespace to start in; empty: the starter's
	Log   string   // file that standard output and standard error are appended to
}

// Process is a started daemon. The zero value is none.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // in clock ticks since boot (proc_pid_stat(5), starttime)
	Mark  string `json:"mark"`
}

// Start starts a daemon in a session of its own and returns without waiting for
// anything it does.
func Start(s Spec) (Process, error) {
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return Process{}, fmt.Errorf("start %s: %w", filepath.Base(s.Path), err)
	}
	defer log.Close()
	cmd := exec.Command(s.Path, s.Args...)
	cmd.Env = append(slices.Clone(s.Env), MarkVariable+"="+s.Mark)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	start := cmd.Start
	if s.Netns != "" {
		start = func() error { return netns.Do(s.Netns, cmd.Start) }
	}
	if err := start(); err != nil {
		return Process{}, fmt.Errorf("start %s: %w", filepath.Base(s.Path), err)
	}
	p := Process{PID: cmd.Process.Pid, Mark: s.Mark}
	// Not waited for yet, so the number can't have been given to another.
	st, err := readStat(p.PID)
	if err != nil {
		return Process{}, fmt.Errorf("start %s: %w", filepath.Base(s.Path), err)
	}
	p.Start = st.start
	// Takes the exit status if the starter is still there then; init does otherwise.
	go func() { _ = cmd.Wait() }()
	return p, nil
}

// Alive says whether the process still runs.
func (p Process) Alive() bool {
	st, err := readStat(p.PID)
	return p.PID != 0 && err == nil && st.start == p.Start && !st.ended
}

// Signal sends a signal. A process that has ended is no error.
func (p Process) Signal(sig unix.Signal) error {
	if p.PID == 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	defer func() { _ = unix.Close(fd) }() // it was only read from
	// The handle is of whoever has the number now: only then look who that is.
	if !p.Alive() || !marked(p.PID, p.Mark) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}

// Wait returns when the process has ended, or with ctx's error.
func (p Process) Wait(ctx context.Context) error {
	for p.Alive() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for process %d to end: %w", p.PID, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// Stop asks the process to end (SIGTERM), makes it end after grace (SIGKILL),
// and returns when it has.
func (p Process) Stop(ctx context.Context, grace time.Duration) error {
	if err := p.Signal(unix.SIGTERM); err != nil {
		return err
	}
	polite, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if p.Wait(polite) == nil {
		return nil
	}
	return p.Kill(ctx)
}

// Kill ends the process at once (SIGKILL) and returns when it has ended.
func (p Process) Kill(ctx context.Context) error {
	if err := p.Signal(unix.SIGKILL); err != nil {
		return err
	}
	return p.Wait(ctx)
}

// Marked returns every process with the mark but the calling one.
func Marked(mark string) ([]Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var ps []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// The start time first: if the number changes hands in between, the mark
		// is another's and Signal will see that the start time is too.
		st, err := readStat(pid)
		if err != nil || st.ended || !marked(pid, mark) {
			continue
		}
		ps = append(ps, Process{PID: pid, Start: st.start, Mark: mark})
	}
	return ps, nil
}

// KillMarked ends every process with the mark, and those that they start
// meanwhile, and returns when none is left or ctx is done.
func KillMarked(ctx context.Context, mark string) error {
	for {
		ps, err := Marked(mark)
		if err != nil || len(ps) == 0 {
			return err
		}
		for _, p := range ps {
			if err := p.Signal(unix.SIGKILL); err != nil {
				return err
			}
		}
		for _, p := range ps {
			if err := p.Wait(ctx); err != nil {
				return err
			}
		}
	}
}

// Save writes the process to a file, for Load.
func (p Process) Save(path string) error {
	b, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("save process: %w", err)
	}
	// Never half a file: a reader may come at any time.
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("save process: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("save process: %w", err)
	}
	return nil
}

// Load reads what Save wrote. Without a file it is the zero Process.
func Load(path string) (Process, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return Process{}, nil
	}
	if err != nil {
		return Process{}, fmt.Errorf("load process: %w", err)
	}
	var p Process
	if err := json.Unmarshal(b, &p); err != nil {
		return Process{}, fmt.Errorf("load process from %s: %w", path, err)
	}
	return p, nil
}

// marked says whether the process has the mark. One that can't be read has not.
func marked(pid int, mark string) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	want := []byte(MarkVariable + "=" + mark)
	return slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool { return bytes.Equal(v, want) })
}

type stat struct {
	start uint64
	ended bool // only its exit status is left: a zombie, all other threads of which are gone too
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The name, in parentheses, may hold anything.
	i := bytes.LastIndexByte(b, ')')
	f := strings.Fields(string(b[i+1:]))
	if i < 0 || len(f) < 20 {
		return stat{}, fmt.Errorf("/proc/%d/stat: %q", pid, b)
	}
	start, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	state, threads := f[0], f[17]
	return stat{start: start, ended: state == "X" || state == "Z" && (threads == "0" || threads == "1")}, nil
}
