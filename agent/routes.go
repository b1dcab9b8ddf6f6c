package agent

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"cairn.network/cairn/agent/calc"
	"cairn.network/cairn/agent/localapi"
	"cairn.network/cairn/kernel"
)

// Routes returns every route that is wanted, learned or in the kernel as Cairn's,
// in the order of destinations.
func (a *Agent) Routes(context.Context) ([]localapi.Route, error) {
	state := a.loop.state.Load()
	if state == nil {
		state = &calc.State{}
	}
	known, failures := a.loop.routes.Known(), a.loop.routes.Failures()
	type entry struct {
		dst netip.Prefix
		localapi.Route
	}
	var all []entry
	stays := map[netip.Prefix]bool{} // destinations that are held
	for k, r := range state.Routes.All() {
		o := state.Origins.At(k)
		e := entry{k.Dst, localapi.Route{Dst: k.Dst.String(), Origin: string(o.Kind), From: o.From, Type: r.Type.String(), NextHops: hops(r)}}
		have, there := known[k]
		if e.InKernel = there && have == r; !e.InKernel {
			e.Reason = "not written yet"
			if f, failed := failures[k]; failed {
				e.Reason = fmt.Sprintf("%v (tried %d times since %s)", f.Err, f.Tries, f.Since.Format(time.TimeOnly))
			} else if err := a.loop.routes.Err(); err != nil {
				e.Reason = err.Error()
			}
		}
		all = append(all, e)
	}
	for k, r := range known {
		if state.Routes.Has(k) {
			continue
		}
		e := entry{k.Dst, localapi.Route{Dst: k.Dst.String(), Type: r.Type.String(), NextHops: hops(r), InKernel: true, Reason: "no longer wanted"}}
		if f, failed := failures[k]; failed {
			e.Reason += ": " + f.Err.Error()
		} else if why, held := state.Held.Get(k); held {
			e.Reason = "the way before; stays while the new one " + why
			stays[k.Dst] = true
		} else if state.Tentative && learned(k, r) {
			e.Reason = "of an earlier run; stays until BGP has told everything"
		}
		all = append(all, e)
	}
	for dst, reason := range state.Unused.All() {
		if stays[dst] {
			continue
		}
		all = append(all, entry{dst, localapi.Route{Dst: dst.String(), Reason: reason}})
	}
	slices.SortStableFunc(all, func(x, y entry) int {
		return cmp.Or(cmp.Compare(x.dst.Addr().BitLen(), y.dst.Addr().BitLen()), x.dst.Addr().Compare(y.dst.Addr()), cmp.Compare(x.dst.Bits(), y.dst.Bits()))
	})
	routes := make([]localapi.Route, len(all))
	for i, e := range all {
		routes[i] = e.Route
	}
	return routes, nil
}

func hops(r kernel.Route) []string {
	var texts []string
	for _, h := range r.Hops.List() {
		texts = append(texts, h.String())
	}
	return texts
}
