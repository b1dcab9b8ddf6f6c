package kernel

import "slices"

// Displaced returns which of the elements that are to go anyway overlap one that is to
// come in the same set: these can't come before those have gone, so both belong into
// one Write. Elements of one set overlap neither among those to come nor among those
// to go.
func Displaced(coming map[Element]struct{}, going []Element) []Element {
	sets := make(map[string][]Element) // those going, by set
	for _, e := range going {
		if e.alone() {
			sets[e.Set] = append(sets[e.Set], e)
		}
	}
	if len(sets) == 0 {
		return nil
	}
	adds := make(map[string][]Element)
	for e := range coming {
		if _, both := sets[e.Set]; both && e.alone() {
			adds[e.Set] = append(adds[e.Set], e)
		}
	}
	var found []Element
	for set, comes := range adds {
		goes := sets[set]
		slices.SortFunc(comes, Element.compare)
		slices.SortFunc(goes, Element.compare)
		for len(comes) > 0 && len(goes) > 0 {
			switch {
			case goes[0].overlaps(comes[0]):
				found = append(found, goes[0])
				goes = goes[1:]
			case goes[0].compare(comes[0]) < 0:
				goes = goes[1:]
			default:
				comes = comes[1:]
			}
		}
	}
	return found
}

// alone says that an element is not concatenated, so that it may be a range.
func (e Element) alone() bool { return (e.Beside == "" || e.Last().IsValid()) && e.Protocol == 0 }

// overlaps says whether an address or port is in both elements. o is no range of
// addresses but a prefix.
func (e Element) overlaps(o Element) bool {
	if !o.Prefix.IsValid() {
		return e.Port <= max(o.Port, o.LastPort) && o.Port <= max(e.Port, e.LastPort)
	}
	last := e.Last()
	if !last.IsValid() {
		return e.Prefix.Overlaps(o.Prefix)
	}
	first := e.Prefix.Addr()
	return o.Prefix.Contains(first) || o.Prefix.Contains(last) ||
		first.Less(o.Prefix.Addr()) && o.Prefix.Addr().Less(last)
}
