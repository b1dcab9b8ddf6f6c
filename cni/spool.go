package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"cairn.network/cairn/cni/protocol"
)

// spool is the folder in which DELs wait for the agent.
type spool struct{ dir string }

// file returns where the DEL of a container's interface waits.
func (s spool) file(req protocol.Request) string {
	return filepath.Join(s.dir, req.ContainerID+"-"+req.Interface+".json")
}

// leave writes the request down. When it returns, the note is on the disk, whole.
func (s spool) leave(req protocol.Request) error {
	if err := s.write(req); err != nil {
		return fmt.Errorf("leave a note for the agent: %w", err)
	}
	return nil
}

func (s spool) write(req protocol.Request) error {
	text, err := json.Marshal(req)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), s.file(req))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// take removes the note for a container's interface, if there is one.
func (s spool) take(req protocol.Request) error {
	if err := os.Remove(s.file(req)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("take back a note for the agent: %w", err)
	}
	return nil
}
