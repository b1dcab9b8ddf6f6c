package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"cairn.network/cairn/cni/protocol"
	"cairn.network/cairn/ipam"
	"cairn.network/cairn/kernel"
)

const (
	// collectAfter is how long a pod's link must be gone until its addresses are
	// freed. It is longer than an ADD may take from its first question to the link.
	collectAfter = 50 * time.Second
	// detachTime is how long a GC waits for links whose namespace has just ended:
	// the kernel removes the one some time after the other.
	detachTime = 5 * time.Second
)

// gc gives back what belongs to no valid container of the network and has no
// live link: the runtime's word is one observation, the kernel's the other. The
// runtime sees to it that no ADD is under way (CNI specification, section 2).
func (a *Agent) gc(ctx context.Context, req protocol.Request) error {
	if err := a.awaitReady(ctx); err != nil {
		return err
	}
	valid := map[ipam.Handle]bool{}
	for _, s := range req.Valid {
		valid[ipam.Handle{ContainerID: s.ContainerID, Interface: s.Interface}] = true
	}
	patience, cancel := context.WithTimeout(ctx, detachTime)
	defer cancel()
	var errs []error
	for as := range a.pods.Assignments().All() {
		if as.IsTunnel() || valid[as.Handle] || as.Network != req.Network {
			continue
		}
		if !a.detached(patience, as) {
			a.log.Warn("a container that is gone has its link still", "container", as.ContainerID, "link", as.HostLink)
			continue
		}
		a.log.Info("freeing addresses of a container that is gone", "container", as.ContainerID, "pod", as.Namespace+"/"+as.Pod)
		errs = append(errs, a.del(ctx, as.Handle))
	}
	return errors.Join(errs...)
}

// detached says whether the host has no link of an assignment. If the pod's
// network namespace is gone it waits for the link to follow.
func (a *Agent) detached(ctx context.Context, as ipam.Assignment) bool {
	for {
		turn := a.loop.turn()
		if !attached(a.loop.currentHost(), as) {
			return true
		}
		if exists(as.Netns) {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-turn:
		}
	}
}

// exists says whether there is a file; in doubt there is.
func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// collector remembers since when which assignments had no link whenever it looked.
type collector map[ipam.Handle]time.Time

// next returns those that have no link now, and had none for collectAfter.
func (c *collector) next(h *kernel.Host, all *ipam.Assignments, now time.Time) []ipam.Handle {
	var gone []ipam.Handle
	missing := collector{}
	for as := range all.All() {
		if as.IsTunnel() || attached(h, as) {
			continue
		}
		since, before := (*c)[as.Handle]
		if !before {
			since = now
		}
		missing[as.Handle] = since
		if now.Sub(since) >= collectAfter {
			gone = append(gone, as.Handle)
		}
	}
	*c = missing
	return gone
}

// runCollector frees, again and again, what nobody asks the agent to free. It is
// apart from the loop, which the disk must not hold up.
func (a *Agent) runCollector(ctx context.Context) error {
	var missing collector
	timer := time.NewTimer(a.loop.jittered())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if a.loop.recovered.Load() {
			a.collect(ctx, &missing)
		}
		timer.Reset(a.loop.jittered())
	}
}

// collect carries out DELs that came while no agent answered, and frees the
// addresses of pods whose link is gone: their DEL got lost.
func (a *Agent) collect(ctx context.Context, missing *collector) {
	if err := a.drainSpool(ctx); err != nil {
		a.log.Warn("some spooled DELs are left", "error", err)
	}
	for _, h := range missing.next(a.loop.currentHost(), a.pods.Assignments(), time.Now()) {
		a.log.Info("freeing addresses of a pod whose link is gone", "container", h.ContainerID)
		if err := a.del(ctx, h); err != nil {
			a.log.Warn("can't free", "container", h.ContainerID, "error", err)
		}
	}
}
