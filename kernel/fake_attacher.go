package kernel

import (
	"cmp"
	"context"
	"fmt"
	"syscall"
)

// Attach makes the host side of a pod's link; there is no other side. The MAC
// address is the same for every pod.
func (f *Fake) Attach(ctx context.Context, a Attachment) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes++
	if err := cmp.Or(ctx.Err(), f.failure("attach", a.ContainerID), a.Validate()); err != nil {
		return "", fmt.Errorf("attach %s: %w", a.HostLink, err)
	}
	if old, ok := f.links[a.HostLink]; ok && old.Alias != PodAlias(a) {
		e := Event{}
		f.dropLink(old, &e)
		f.tell(e, true)
	}
	f.setLink(Link{Name: a.HostLink, Kind: "veth", MTU: a.MTU, Up: true, Alias: PodAlias(a)})
	return "02:00:00:00:00:01", nil
}

// Detach deletes the link if it is this container's.
func (f *Fake) Detach(ctx context.Context, a Attachment) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes++
	if err := cmp.Or(ctx.Err(), f.failure("detach", a.ContainerID)); err != nil {
		return fmt.Errorf("detach %s: %w", a.HostLink, err)
	}
	l, ok := f.links[a.HostLink]
	if !ok {
		return nil
	}
	if owner, isPod := ParsePodAlias(l.Alias); isPod && owner.ContainerID == a.ContainerID {
		e := Event{}
		f.dropLink(l, &e)
		f.tell(e, true)
	}
	return nil
}

// SetMTU changes the host side.
func (f *Fake) SetMTU(ctx context.Context, a Attachment) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes++
	if err := cmp.Or(ctx.Err(), f.failure("mtu", a.ContainerID), a.Validate()); err != nil {
		return fmt.Errorf("set MTU of %s: %w", a.HostLink, err)
	}
	l := f.links[a.HostLink]
	if owner, isPod := ParsePodAlias(l.Alias); !isPod || owner.ContainerID != a.ContainerID {
		return fmt.Errorf("set MTU of %s: %w", a.HostLink, syscall.ENODEV)
	}
	l.MTU = a.MTU
	f.setLink(l)
	return nil
}

// Check compares the host side with what Attach makes.
func (f *Fake) Check(ctx context.Context, a Attachment) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmp.Or(ctx.Err(), f.failure("check", a.ContainerID)); err != nil {
		return fmt.Errorf("check %s: %w", a.HostLink, err)
	}
	l, ok := f.links[a.HostLink]
	switch {
	case !ok:
		return fmt.Errorf("check %s: %w", a.HostLink, syscall.ENODEV)
	case l.Alias != PodAlias(a):
		return fmt.Errorf("check %s: alias is %q, want %q", a.HostLink, l.Alias, PodAlias(a))
	case !l.Up:
		return fmt.Errorf("check %s: is down", a.HostLink)
	case l.MTU != a.MTU:
		return fmt.Errorf("check %s: MTU is %d, want %d", a.HostLink, l.MTU, a.MTU)
	}
	return nil
}
