package process_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cairn.network/cairn/lab/process"
)

func start(t *testing.T, mark, script string) process.Process {
	t.Helper()
	p, err := process.Start(process.Spec{
		Path: "/bin/sh", Args: []string{"-c", script}, Env: os.Environ(), Mark: mark, Log: filepath.Join(t.TempDir(), "log"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := process.KillMarked(context.WithoutCancel(t.Context()), mark); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestStop(t *testing.T) {
	tests := []struct{ name, script string }{
		{"ends when asked", "exec sleep 1000"},
		{"must be made to end", "trap '' TERM; while :; do sleep 1000; done"},
		{"ended by itself", "exit 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := start(t, t.TempDir(), tt.script)
			if err := p.Stop(t.Context(), 50*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			if p.Alive() {
				t.Error("alive after Stop")
			}
			if err := p.Stop(t.Context(), time.Second); err != nil {
				t.Errorf("the second Stop: %v", err)
			}
		})
	}
}

func TestSignalsOnlyItsOwn(t *testing.T) {
	p := start(t, t.TempDir(), "exec sleep 1000")
	tests := []struct {
		name  string
		other process.Process
	}{
		{"another start time", process.Process{PID: p.PID, Start: p.Start + 1, Mark: p.Mark}},
		{"another mark", process.Process{PID: p.PID, Start: p.Start, Mark: p.Mark + "x"}},
		{"a beginning of the mark", process.Process{PID: p.PID, Start: p.Start, Mark: p.Mark[:len(p.Mark)-1]}},
		{"none", process.Process{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.other.Signal(unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if !p.Alive() {
				t.Fatal("signalled a process that is not its own")
			}
		})
	}
}

func TestKillMarkedFindsStrays(t *testing.T) {
	mark, other := t.TempDir(), t.TempDir()
	// The child is in a session of its own and its parent is gone.
	p := start(t, mark, "setsid sleep 1000 & setsid sleep 1000 & exit 0")
	bystander := start(t, other, "exec sleep 1000")
	if err := p.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	strays, err := process.Marked(mark)
	if err != nil || len(strays) != 2 {
		t.Fatalf("Marked: %v, %v; want two", strays, err)
	}
	if err := process.KillMarked(t.Context(), mark); err != nil {
		t.Fatal(err)
	}
	for _, s := range strays {
		if s.Alive() {
			t.Errorf("process %d survived", s.PID)
		}
	}
	if !bystander.Alive() {
		t.Error("a process with another mark was killed")
	}
}

func TestSaveLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.json")
	if p, err := process.Load(path); err != nil || p != (process.Process{}) {
		t.Errorf("Load without a file: %v, %v", p, err)
	}
	want := process.Process{PID: 7, Start: 8, Mark: "m"}
	if err := want.Save(path); err != nil {
		t.Fatal(err)
	}
	if got, err := process.Load(path); err != nil || got != want {
		t.Errorf("Load: %v, %v; want %v", got, err, want)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := process.Load(path); err == nil {
		t.Error("no error for half a file")
	}
}

func TestStartErrors(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	tests := []struct {
		name string
		spec process.Spec
	}{
		{"no such program", process.Spec{Path: "/nowhere", Mark: "m", Log: log}},
		{"no such namespace", process.Spec{Path: "/bin/true", Mark: "m", Log: log, Netns: "/nowhere"}},
		{"no folder for the log", process.Spec{Path: "/bin/true", Mark: "m", Log: "/nowhere/log"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if p, err := process.Start(tt.spec); err == nil || p != (process.Process{}) {
				t.Errorf("Start: %v, %v; want an error", p, err)
			}
		})
	}
}
