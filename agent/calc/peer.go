package calc

import (
	"net/netip"
	"time"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/selector"
)

// scope says how a BGPPeer names its nodes, the most specific first.
type scope int

const (
	scopeNode scope = iota
	scopeSelector
	scopeGlobal
)

// peer is a BGPPeer.
type peer struct {
	name        string
	scope       scope
	node        string             // of scopeNode
	nodes       *selector.Selector // of scopeSelector
	address     netip.AddrPort
	as          uint32
	restartTime time.Duration // 0: none asked for
	holdTime    time.Duration
	accepts     []netip.Prefix
}

func (p *peer) appliesTo(m *member) bool {
	switch p.scope {
	case scopeNode:
		return p.node == m.name
	case scopeSelector:
		return p.nodes.Match(m.labels)
	}
	return true
}

func parsePeer(o *v1.BGPPeer) (*peer, []v1.Issue) {
	full, issues := check(o, "the peer is ignored")
	if len(issues) > 0 {
		return nil, issues
	}
	p := &peer{
		name: o.Name, scope: scopeGlobal, node: full.Spec.Node,
		address: full.AddrPort(), as: full.Spec.ASNumber, holdTime: 3 * full.Spec.KeepaliveTime.Duration,
	}
	if d := full.Spec.MaxRestartTime; d != nil {
		p.restartTime = d.Duration
	}
	for _, text := range full.Spec.AcceptCIDRs {
		p.accepts = append(p.accepts, netip.MustParsePrefix(text)) // Validate has parsed it
	}
	switch text := full.Spec.NodeSelector; {
	case p.node != "":
		p.scope = scopeNode
	case text != "":
		nodes, err := selector.Parse(text)
		if err != nil {
			return nil, []v1.Issue{{Object: objectName(o), Field: "spec.nodeSelector", Reason: err.Error() + ": the peer is ignored"}}
		}
		p.scope, p.nodes = scopeSelector, nodes
	}
	return p, nil
}
