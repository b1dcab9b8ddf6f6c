//go:build linux

package linux

import (
	"testing"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// lookupWorld is a world whose routing can be asked.
type lookupWorld struct {
	*world
	kernel.Lookup
}

func TestLookupPassesTheSuite(t *testing.T) {
	kerneltest.RunLookup(t, func(t *testing.T) kerneltest.LookupWorld {
		w := newWorld(t)
		return lookupWorld{w, NewLookup(In(int(w.netns.Fd())))}
	})
}
