package calc

import (
	"cairn.network/cairn/immutable"
	"cairn.network/cairn/kernel"
	"cairn.network/cairn/policy"
)

// rules is all that is in the table of nftables: what protects tunnels and translates
// addresses, and what policies say. No name is in both.
type rules struct {
	protection protection
	enforced   policy.Output

	sets     immutable.Map[string, kernel.Set]
	elements immutable.Map[kernel.Element, struct{}]
	chains   immutable.Map[string, kernel.Chain]
}

// of returns the rules of both, made of the last ones: the cost is that of what
// changed. What policies say comes first, for most of it is theirs: all shares it then.
func (r rules) of(p protection, e policy.Output) rules {
	return rules{
		protection: p, enforced: e,
		sets:     joined(joined(r.sets, r.enforced.Sets, e.Sets), r.protection.sets, p.sets),
		elements: joined(joined(r.elements, r.enforced.Elements, e.Elements), r.protection.elements, p.elements),
		chains:   joined(joined(r.chains, r.enforced.Chains, e.Chains), r.protection.chains, p.chains),
	}
}

// joined returns all, in which a part has changed from was to is. Without another part
// that is the part itself, which is kept once then.
func joined[K, V comparable](all, was, is immutable.Map[K, V]) immutable.Map[K, V] {
	if all.Len() == was.Len() {
		return is
	}
	edit := all.Edit()
	for k := range immutable.Diff(was, is) {
		if v, ok := is.Get(k); ok {
			edit.Set(k, v)
		} else {
			edit.Delete(k)
		}
	}
	return edit.Map()
}
