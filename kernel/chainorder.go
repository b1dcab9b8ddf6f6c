package kernel

import (
	"maps"
	"slices"
)

// OpenChain is a chain with the list of its rules at hand, for those who look at them
// more than once: to decode them takes time.
type OpenChain struct {
	Chain
	List []Rule
}

// Open decodes the rules of a chain.
func (c Chain) Open() OpenChain { return OpenChain{c, c.Rules.List()} }

// OpenChains decodes the rules of chains.
func OpenChains(chains map[string]Chain) map[string]OpenChain {
	open := make(map[string]OpenChain, len(chains))
	for key, c := range chains {
		open[key] = c.Open()
	}
	return open
}

// ChainOrder returns the keys of chains and entries in an order in which each comes
// behind all that it leads to: what can be written one by one. Those that lead to
// themselves, by way of others or not, have no such place and are in circles.
func ChainOrder(chains map[string]OpenChain) (order, circles []string) {
	o := chainOrder{chains: chains, state: make(map[string]int, len(chains))}
	for _, key := range slices.Sorted(maps.Keys(chains)) {
		o.visit(key)
	}
	for _, key := range o.order {
		if o.circles[key] {
			circles = append(circles, key)
		} else {
			order = append(order, key)
		}
	}
	return order, circles
}

// chainOrder is a walk in depth.
type chainOrder struct {
	chains  map[string]OpenChain
	state   map[string]int // 0 not seen, or its place on the path, from 1 on, or seen
	path    []string
	order   []string
	circles map[string]bool
}

const seen = -1

func (o *chainOrder) visit(key string) {
	if at := o.state[key]; at != 0 {
		if at != seen { // on the path: what lies from there on leads to itself
			if o.circles == nil {
				o.circles = make(map[string]bool)
			}
			for _, k := range o.path[at-1:] {
				o.circles[k] = true
			}
		}
		return
	}
	o.path = append(o.path, key)
	o.state[key] = len(o.path)
	for _, to := range o.chains[key].leadsTo() {
		if _, ours := o.chains[to]; ours {
			o.visit(to)
		}
	}
	o.path = o.path[:len(o.path)-1]
	o.state[key] = seen
	o.order = append(o.order, key)
}

// leadsTo returns the chains that a chain or entry leads to, but for those of verdict
// maps.
func (c OpenChain) leadsTo() (names []string) {
	if c.To != "" {
		return []string{c.To}
	}
	for _, r := range c.List {
		if to := r.LeadsTo(); to != "" && !slices.Contains(names, to) {
			names = append(names, to)
		}
	}
	return names
}
