package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"syscall"
)

// Sysctls returns the table of kernel parameters: those of the host, and those
// of links that are pods' or tunnels.
func (f *Fake) Sysctls() Table[Sysctl, string] { return fakeSysctls{f} }

type fakeSysctls struct{ *Fake }

func (f fakeSysctls) Read(ctx context.Context) (map[Sysctl]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmp.Or(ctx.Err(), f.failure("read", "sysctls")); err != nil {
		return nil, fmt.Errorf("read sysctls: %w", err)
	}
	wanted := HostSysctls()
	for _, l := range f.links {
		if sysctls := SysctlsOf(l); sysctls != nil {
			maps.Copy(wanted, sysctls)
		}
	}
	have := make(map[Sysctl]string, len(wanted))
	for k := range wanted {
		if v, ok := f.sysctls[k]; ok {
			have[k] = v
		}
	}
	return have, nil
}

func (f fakeSysctls) Write(ctx context.Context, set map[Sysctl]string, del []Sysctl) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("write sysctls: %w", err)
	}
	var errs []error
	for k, v := range set {
		f.writes++
		_, exists := f.sysctls[k]
		err := f.failure("set", k)
		if err == nil && !exists {
			err = syscall.ENOENT
		}
		if err != nil {
			errs = append(errs, &KeyError[Sysctl]{Op: "set", Key: k, Err: err})
			continue
		}
		f.sysctls[k] = v
	}
	for _, k := range del {
		if err := f.failure("delete", k); err != nil {
			errs = append(errs, &KeyError[Sysctl]{Op: "delete", Key: k, Err: err})
		}
	}
	return errors.Join(errs...)
}

// SetSysctl does what "sysctl -w" does.
func (f *Fake) SetSysctl(k Sysctl, v string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sysctls[k] = v
}
