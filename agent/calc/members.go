package calc

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/kernel"
)

// members is the cluster's nodes. What two nodes say is their own is the own
// node's, or else that of the first by name.
type members struct {
	node  string // name of the own node
	part  *datastore.Part
	known map[string]standing
	// first says whose an identity is; rest holds the others that want it.
	first map[identity]right
	rest  map[identity][]right

	faults map[string][]v1.Issue // by node: why it is refused
	issues []v1.Issue

	publishers map[string]int // by link: how many nodes publish their end, the own one included
	// without4 counts those that publish a WireGuard device and have no IPv4 address.
	without4 int
}

// standing is a node as it says it is, and as it counts.
type standing struct {
	said   *member // nil: refused, or without addresses
	counts *member // without what is another's; nil as above
	gone   bool    // there is no such resource any more
}

// right is what a node wants an identity for.
type right struct {
	node string
	role role
}

// memberChange is a node that became another; was or is may be nil.
type memberChange struct {
	name    string
	was, is *member
}

func newMembers(node string) *members {
	return &members{
		node: node, known: map[string]standing{}, first: map[identity]right{}, rest: map[identity][]right{},
		faults: map[string][]v1.Issue{}, publishers: map[string]int{}, issues: noNode(node, false),
	}
}

// own returns the own node; nil: without addresses, so it can't be reached nor
// reach others.
func (ms *members) own() *member { return ms.known[ms.node].counts }

// named returns a node; nil if nobody can reach it.
func (ms *members) named(name string) *member { return ms.known[name].counts }

// at returns the node that has a node address; nil if there is none.
func (ms *members) at(a netip.Addr) *member {
	r, ok := ms.first[addressIdentity(a)]
	if !ok || r.role > roleNode6 {
		return nil
	}
	return ms.named(r.node)
}

// others returns all but the own node, in no order.
func (ms *members) others() iter.Seq[*member] {
	return func(yield func(*member) bool) {
		for name, s := range ms.known {
			if s.counts != nil && name != ms.node && !yield(s.counts) {
				return
			}
		}
	}
}

// update takes in the Nodes as they are now, and returns who counts as another
// than before.
func (ms *members) update(part *datastore.Part) []memberChange {
	if part == ms.part {
		return nil
	}
	touched := map[string]struct{}{}
	if ms.part == nil {
		ms.known = make(map[string]standing, part.Len())
		ms.first = make(map[identity]right, 3*part.Len()) // an address, and a VXLAN device's two
	}
	for was, is := range datastore.Changed[*v1.Node](ms.part, part) {
		name := objectOf(was, is).Name
		touched[name] = struct{}{}
		ms.replace(name, is, touched)
	}
	ms.part = part
	var changes []memberChange
	for name := range touched {
		s := ms.known[name]
		was := s.counts
		if is := ms.counting(s.said); !sameMember(was, is) {
			s.counts = is
			changes = append(changes, memberChange{name, was, is})
			ms.count(was, -1)
			ms.count(is, 1)
		}
		if s.gone {
			delete(ms.known, name)
		} else {
			ms.known[name] = s
		}
	}
	ms.findIssues()
	return changes
}

// objectOf returns the one of two that is there, as Changed yields them.
func objectOf[O interface {
	comparable
	v1.Object
}](was, is O) O {
	var none O
	if is == none {
		return was
	}
	return is
}

// replace takes in what one node says now, nil if it is gone.
func (ms *members) replace(name string, o *v1.Node, touched map[string]struct{}) {
	s := ms.known[name]
	if s.said != nil {
		for id, r := range s.said.identities() {
			ms.yield(id, right{name, r}, touched)
		}
	}
	s.said, s.gone = nil, o == nil
	delete(ms.faults, name)
	if o != nil {
		var issues []v1.Issue
		if s.said, issues = parseNode(o); len(issues) > 0 {
			ms.faults[name] = issues
		}
	}
	if s.said != nil {
		for id, r := range s.said.identities() {
			ms.want(id, right{name, r}, touched)
		}
	}
	ms.known[name] = s
}

// want notes that a node wants an identity.
func (ms *members) want(id identity, r right, touched map[string]struct{}) {
	first, taken := ms.first[id]
	switch {
	case !taken:
		ms.first[id] = r
	case ms.compare(r, first) < 0:
		ms.first[id] = r
		ms.rest[id] = append(ms.rest[id], first)
		touched[first.node] = struct{}{}
	default:
		ms.rest[id] = append(ms.rest[id], r)
	}
}

// yield notes that a node does not want an identity any more.
func (ms *members) yield(id identity, r right, touched map[string]struct{}) {
	rest := ms.rest[id]
	if ms.first[id] == r {
		if len(rest) == 0 {
			delete(ms.first, id)
			return
		}
		r = slices.MinFunc(rest, ms.compare)
		ms.first[id] = r
		touched[r.node] = struct{}{}
	}
	rest = slices.DeleteFunc(rest, func(o right) bool { return o == r })
	if ms.rest[id] = rest; len(rest) == 0 {
		delete(ms.rest, id)
	}
}

// compare orders rights to one identity: node addresses before those of tunnels,
// the own node before others, and then by name.
func (ms *members) compare(a, b right) int {
	rank := func(r right) int {
		n := 0
		if r.role > roleNode6 {
			n = 2
		}
		if r.node != ms.node {
			n++
		}
		return n
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a.node, b.node), cmp.Compare(a.role, b.role))
}

// counting returns the member without what is another's.
func (ms *members) counting(said *member) *member {
	if said == nil {
		return nil
	}
	kept := said
	for id, r := range said.identities() {
		if ms.first[id].node == said.name {
			continue
		}
		if kept == said {
			kept = &member{said.profile, said.labels}
		}
		kept.lose(r)
	}
	return kept
}

// count adds a member to what is known of all, or takes it away.
func (ms *members) count(m *member, n int) {
	if m == nil {
		return
	}
	for _, link := range kernel.TunnelLinks() {
		if m.publishes(link) {
			ms.publishers[link] += n
		}
	}
	if m.wireGuard.exists() && !m.address(bgp.IPv4).IsValid() {
		ms.without4 += n
	}
}

func (ms *members) findIssues() {
	var issues []v1.Issue
	for _, list := range ms.faults {
		issues = append(issues, list...)
	}
	for id, rest := range ms.rest {
		first := ms.first[id]
		for _, r := range rest {
			if r.node == first.node {
				continue
			}
			field, _ := r.role.text()
			_, what := first.role.text()
			issues = append(issues, v1.Issue{
				Object: "Node " + r.node, Field: field,
				Reason: fmt.Sprintf("%s is the %s of node %s too: it is ignored here", id, what, first.node),
			})
		}
	}
	if ms.own() == nil {
		_, exists := ms.known[ms.node]
		issues = append(issues, noNode(ms.node, exists)...)
	}
	ms.issues = issues
}

// noNode returns the issue that the own node has no address.
func noNode(node string, exists bool) []v1.Issue {
	issue := v1.Issue{Object: "Node " + node, Reason: "there is no such resource: no BGP, and no routes to other nodes' pods"}
	if exists {
		issue.Field, issue.Reason = "spec.bgp", "no usable address: no BGP, and no routes to other nodes' pods"
	}
	return []v1.Issue{issue}
}
