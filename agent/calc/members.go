package calc

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/bgp"
	"cairn.network/cairn/datastore"
)

// member is a node that others can reach.
type member struct {
	name string
	// v4 and v6 are the node's addresses, each with the length of its subnet's
	// prefix, not masked; invalid: none.
	v4, v6 netip.Prefix
	as     uint32 // 0: the cluster's
	labels map[string]string
}

// address returns the member's address of a family with its subnet's length;
// invalid if it has none.
func (m *member) address(f bgp.Family) netip.Prefix {
	if f == bgp.IPv4 {
		return m.v4
	}
	return m.v6
}

// addresses returns the member's addresses with their subnets' lengths, IPv4
// first.
func (m *member) addresses() []netip.Prefix {
	return slices.DeleteFunc([]netip.Prefix{m.v4, m.v6}, func(p netip.Prefix) bool { return !p.IsValid() })
}

// members is the cluster's nodes.
type members struct {
	node   string    // name of the own node
	own    *member   // nil: without addresses, so it can't be reached nor reach others
	others []*member // by name
	byName map[string]*member
	byAddr map[netip.Addr]*member // own addresses too
	issues []v1.Issue
}

type membersKey struct {
	part *datastore.Part
	node string
}

type parsedNode struct {
	member *member // nil: refused, or without addresses
	issues []v1.Issue
}

func parseNode(o *v1.Node) parsedNode {
	full, issues := check(o, "the node counts as one without addresses")
	if len(issues) > 0 {
		return parsedNode{issues: issues}
	}
	if full.Spec.BGP == nil {
		return parsedNode{}
	}
	m := &member{name: o.Name, v4: full.Address(false), v6: full.Address(true), labels: o.Labels}
	if as := full.Spec.BGP.ASNumber; as != nil {
		m.as = *as
	}
	return parsedNode{member: m}
}

// newMembers returns the cluster as the named node sees it. An address that two
// nodes claim is the own node's, or else that of the first by name.
func newMembers(node string, parsed map[*v1.Node]parsedNode) *members {
	ms := &members{node: node, byName: map[string]*member{}, byAddr: map[netip.Addr]*member{}}
	var list []*member
	exists := false
	for o, p := range parsed {
		exists = exists || o.Name == node
		ms.issues = append(ms.issues, p.issues...)
		if p.member != nil {
			list = append(list, p.member)
		}
	}
	rank := func(m *member) int {
		if m.name == node {
			return 0
		}
		return 1
	}
	slices.SortFunc(list, func(a, b *member) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a.name, b.name))
	})
	for _, m := range list {
		m = ms.withoutTaken(m)
		ms.byName[m.name] = m
		if m.name == node {
			ms.own = m
		} else {
			ms.others = append(ms.others, m)
		}
	}
	if ms.own == nil {
		issue := v1.Issue{Object: "Node " + node, Reason: "there is no such resource: no BGP, and no routes to other nodes' pods"}
		if exists {
			issue.Field, issue.Reason = "spec.bgp", "no usable address: no BGP, and no routes to other nodes' pods"
		}
		ms.issues = append(ms.issues, issue)
	}
	return ms
}

// withoutTaken notes the member's addresses, and returns it without those that
// another member has already.
func (ms *members) withoutTaken(m *member) *member {
	kept := *m
	for _, p := range []*netip.Prefix{&kept.v4, &kept.v6} {
		if !p.IsValid() {
			continue
		}
		if first := ms.byAddr[p.Addr()]; first != nil {
			ms.issues = append(ms.issues, v1.Issue{
				Object: "Node " + m.name, Field: "spec.bgp",
				Reason: fmt.Sprintf("%s is the address of node %s too: it is ignored here", p.Addr(), first.name),
			})
			*p = netip.Prefix{}
			continue
		}
		ms.byAddr[p.Addr()] = &kept
	}
	return &kept
}
