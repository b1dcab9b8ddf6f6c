package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"cairn.network/cairn/cni/protocol"
)

// spool is the folder in which the plug-in leaves DELs while no agent answers.
type spool struct{ dir string }

// drainSpool carries out the DELs left there. A file goes when its DEL is done;
// one that can't be understood is set aside under another name.
func (a *Agent) drainSpool(ctx context.Context) error {
	if a.spool.dir == "" {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(a.spool.dir, "*.json"))
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range files {
		errs = append(errs, a.drainFile(ctx, file))
	}
	return errors.Join(errs...)
}

func (a *Agent) drainFile(ctx context.Context, file string) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var req protocol.Request
	if err := json.Unmarshal(text, &req); err != nil || req.Verb != protocol.VerbDel || req.ContainerID == "" || handleOf(req).IsTunnel() {
		return errors.Join(fmt.Errorf("%s holds no DEL; it is set aside", file), os.Rename(file, file+".bad"))
	}
	if err := a.del(ctx, handleOf(req)); err != nil {
		return err
	}
	a.log.Info("carried out a spooled DEL", "container", req.ContainerID, "pod", req.Namespace+"/"+req.Pod)
	return os.Remove(file)
}
