package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"cairn.network/cairn/cni/protocol"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

// gc gives back what belongs to no valid container of the network and has no
// live link: the runtime's word is one observation, the kernel's the other.
func (a *Agent) gc(ctx context.Context, req protocol.Request) error {
	if err := a.awaitReady(ctx); err != nil {
		return err
	}
	valid := map[ipam.Handle]bool{}
	for _, s := range req.Valid {
		valid[ipam.Handle{ContainerID: s.ContainerID, Interface: s.Interface}] = true
	}
	host := a.loop.currentHost()
	var errs []error
	for as := range a.pods.Assignments().All() {
		if valid[as.Handle] || as.Network != req.Network || attached(host, as) && exists(as.Netns) {
			continue
		}
		a.log.Info("freeing addresses of a container that is gone", "container", as.ContainerID, "pod", as.Namespace+"/"+as.Pod)
		errs = append(errs, a.del(ctx, as.Handle))
	}
	return errors.Join(errs...)
}

// exists says whether there is a file; in doubt there is.
func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// collector remembers which assignments had no link when last looked at.
type collector map[ipam.Handle]bool

// next returns those that have no link now and had none the last time.
func (c *collector) next(h *kernel.Host, all *ipam.Assignments) []ipam.Handle {
	var gone []ipam.Handle
	now := collector{}
	for as := range all.All() {
		if attached(h, as) {
			continue
		}
		now[as.Handle] = true
		if (*c)[as.Handle] {
			gone = append(gone, as.Handle)
		}
	}
	*c = now
	return gone
}

// collect frees the addresses of pods whose link was gone at two resyncs in a
// row: their DEL got lost. A resync is longer than an ADD may take.
func (a *Agent) collect(ctx context.Context) {
	if !a.loop.recovered.Load() {
		return
	}
	if err := a.drainSpool(ctx); err != nil {
		a.log.Warn("some spooled DELs are left", "error", err)
	}
	for _, h := range a.gone.next(a.loop.currentHost(), a.pods.Assignments()) {
		a.log.Info("freeing addresses of a pod whose link is gone", "container", h.ContainerID)
		if err := a.del(ctx, h); err != nil {
			a.log.Warn("can't free", "container", h.ContainerID, "error", err)
		}
	}
}
