package bench

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

var nodes = []string{"n1", "n2", "n3", "n4"}

// memory measures what agents take when nothing happens.
func (b *bench) memory(context.Context) error {
	var rss []float64
	for _, n := range nodes {
		p, err := b.lab.Process(n)
		if err != nil {
			return err
		}
		m, err := residentMiB(p.PID)
		if err != nil {
			return err
		}
		rss = append(rss, m)
	}
	b.add(Row{Name: "RSS of an idle agent, 4 nodes", Unit: "MiB", Samples: rss, Aim: "at most 60 MiB"})
	return nil
}

// residentMiB returns a process's resident memory.
func residentMiB(pid int) (float64, error) { return memoryMiB(pid, "VmRSS:") }

// memoryMiB returns a figure of a process's memory (proc_pid_status(5)).
func memoryMiB(pid int, field string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); f[0] == field {
			kib, err := strconv.ParseFloat(f[1], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has no %s", pid, field)
}

// starts measures from the start of agents until all their sessions are
// Established: of one whose agent was killed, and of all four at once.
func (b *bench) starts(ctx context.Context) error {
	const rounds = 5
	var one, all []float64
	for range rounds {
		took, err := b.restart(ctx, "n1")
		if err != nil {
			return err
		}
		one = append(one, ms(took))
	}
	for range rounds {
		took, err := b.restart(ctx, nodes...)
		if err != nil {
			return err
		}
		all = append(all, ms(took))
	}
	b.add(Row{Name: "one agent's start to all 8 sessions Established", Unit: "ms", Samples: one, Aim: "at most 2000 ms"})
	b.add(Row{Name: "four agents' start to all sessions Established", Unit: "ms", Samples: all, Aim: "at most 2000 ms"})
	return nil
}

func (b *bench) restart(ctx context.Context, nodes ...string) (time.Duration, error) {
	for _, n := range nodes {
		if err := b.lab.Kill(ctx, n); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	for _, n := range nodes {
		if err := b.lab.Start(ctx, n); err != nil {
			return 0, err
		}
	}
	err := b.lab.WaitBGP(ctx, nodes...)
	return time.Since(start), err
}
