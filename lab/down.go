package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"cairn.network/cairn/lab/netns"
	"cairn.network/cairn/lab/process"
)

// Down removes the lab of that name: its processes, namespaces and files. What
// is gone already is no error, nor is a lab that does not exist. Nothing of the
// lab needs to work for that.
func Down(ctx context.Context, root, name string) error {
	dir := filepath.Join(root, name)
	if os.Getenv(process.MarkVariable) == dir {
		return fmt.Errorf("down: this shell runs inside lab %s and would end with it: leave it first", name)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	unlock, err := lock(ctx, dir, true)
	switch {
	case err == nil:
		defer unlock()
	case !errors.Is(err, ErrNotUp):
		return err
	}
	// Without a folder there may still be processes: of one that removed it by hand.
	if err := process.KillMarked(ctx, dir); err != nil {
		return fmt.Errorf("down: %w", err)
	}
	if err := netns.DeleteAll(filepath.Join(dir, "netns")); err != nil {
		return fmt.Errorf("down: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("down: %w", err)
	}
	if err := os.Remove(root); err != nil && !errors.Is(err, fs.ErrNotExist) && !isNotEmpty(root) {
		return fmt.Errorf("down: %w", err)
	}
	return nil
}

// isNotEmpty says whether the folder holds something: another lab.
func isNotEmpty(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && len(entries) > 0
}
