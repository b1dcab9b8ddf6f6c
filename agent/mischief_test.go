package agent_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"cairn.network/cairn/datastore"
	"cairn.network/cairn/kernel"
)

// TestAnyOrder throws faults at a cluster in random order. Once they end, all is
// as if they had not been: every pod reaches every pod, the datastore knows just
// the pods there are, and nothing moves.
func TestAnyOrder(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				roll := rand.New(rand.NewPCG(seed, 1)).IntN
				for step := range 60 {
					c.mischief(roll, step)
					time.Sleep(time.Duration(roll(20000)) * time.Millisecond)
				}
				c.store.SetDown(nil)
				c.heal()
				for _, n := range c.nodes {
					n.kernel.Fail("set", nil, nil)
					if n.stop == nil {
						n.start()
					}
				}
				time.Sleep(10 * time.Minute)
				c.settle()
				for _, n := range c.nodes {
					n.add("last-" + n.name)
				}
				c.settle()
				c.checkMatrix()
				c.checkAddresses()
				c.checkQuiet()
			}, "a1", "a2", "b1", "b2")
		})
	}
}

// mischief does one thing that happens to clusters.
func (c *cluster) mischief(roll func(int) int, step int) {
	names := slices.Sorted(maps.Keys(c.nodes))
	n := c.nodes[names[roll(len(names))]]
	switch roll(11) {
	case 0, 1, 2:
		if n.stop != nil {
			// May fail while things are broken; the plug-in then undoes it.
			pod := fmt.Sprintf("pod-%d", step)
			if resp, err := n.tryAdd(pod); err != nil {
				n.pods[pod] = resp
				n.del(pod)
			}
		}
	case 3:
		if n.stop != nil && len(n.pods) > 0 {
			n.del(slices.Sorted(maps.Keys(n.pods))[0])
		}
	case 4:
		if n.stop == nil {
			n.start()
		} else {
			n.halt()
		}
	case 5:
		if roll(2) == 0 {
			c.store.SetDown(datastore.ErrUnavailable)
		} else {
			c.store.SetDown(nil)
		}
	case 6:
		ours := slices.SortedFunc(maps.Keys(n.kernel.OurRoutes()), func(a, b kernel.RouteKey) int { return a.Dst.Compare(b.Dst) })
		if len(ours) > 0 {
			n.kernel.DropRoute(ours[roll(len(ours))])
		}
	case 7:
		n.kernel.Overrun()
		if roll(2) == 0 {
			n.kernel.Fail("set", nil, kernel.ErrBusy)
		} else {
			n.kernel.Fail("set", nil, nil)
		}
	case 8:
		c.store.Compact()
	case 9:
		if other := c.nodes[names[roll(len(names))]]; roll(2) == 0 && other != n {
			c.fabric.Cut(n.name, other.name)
		} else {
			c.heal()
		}
	case 10:
		n.flap(time.Duration(roll(5000)) * time.Millisecond)
	}
}

// heal mends every link that mischief cut.
func (c *cluster) heal() {
	for a := range c.nodes {
		for b := range c.nodes {
			if a != b {
				c.fabric.Heal(a, b)
			}
		}
	}
}
