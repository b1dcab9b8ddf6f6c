package wire

import (
	"fmt"
	"net/netip"

	v1 "cairn.network/cairn/api/v1"
)

// Cluster is what decides how packets travel.
type Cluster struct {
	Pools          []*v1.IPPool
	Nodes          map[string]*v1.Node               // by name
	Configurations map[string]*v1.AgentConfiguration // by name
}

// Of returns the cluster that the objects describe; other kinds are left out.
func Of(objects []v1.Object) Cluster {
	c := Cluster{Nodes: map[string]*v1.Node{}, Configurations: map[string]*v1.AgentConfiguration{}}
	for _, o := range objects {
		switch o := o.(type) {
		case *v1.IPPool:
			c.Pools = append(c.Pools, o)
		case *v1.Node:
			c.Nodes[o.Name] = o
		case *v1.AgentConfiguration:
			c.Configurations[o.Name] = o
		}
	}
	return c
}

// Pool returns the pool that the address lies in; nil: none.
func (c Cluster) Pool(a netip.Addr) *v1.IPPool {
	for _, p := range c.Pools {
		if p.Prefix().Contains(a) {
			return p
		}
	}
	return nil
}

// Expect returns how packets travel from one node to a pod's address on another.
func (c Cluster) Expect(from, to string, dst netip.Addr) (Transport, error) {
	pool := c.Pool(dst)
	if pool == nil {
		return Transport{}, fmt.Errorf("%s lies in no pool", dst)
	}
	source, target := c.settings(from), c.settings(to)
	if source.WireGuardEnabled && target.WireGuardEnabled {
		a, b, err := c.ends(from, to, c.both4(from, to))
		return Transport{Kind: WireGuard, Port: uint16(target.WireGuardListeningPort), From: a, To: b}, err
	}
	a, b, err := c.ends(from, to, dst.Is4())
	if err != nil {
		return Transport{}, err
	}
	same := c.Nodes[from].Address(dst.Is6()).Contains(b)
	switch {
	case tunnelled(pool.Spec.IPIPMode, same):
		return Transport{Kind: IPIP, From: a, To: b}, nil
	case tunnelled(pool.Spec.VXLANMode, same):
		return Transport{Kind: VXLAN, VNI: uint32(source.VXLANVNI), Port: uint16(source.VXLANPort), From: a, To: b}, nil
	}
	return Transport{Kind: Plain}, nil
}

func tunnelled(m v1.EncapMode, sameSubnet bool) bool {
	return m == v1.EncapAlways || m == v1.EncapCrossSubnet && !sameSubnet
}

func (c Cluster) settings(node string) v1.AgentSettings {
	return v1.Effective(c.Configurations[v1.DefaultName], c.Configurations[v1.NodeConfigurationPrefix+node])
}

// both4 says whether both nodes have an IPv4 address.
func (c Cluster) both4(from, to string) bool {
	for _, name := range []string{from, to} {
		if n := c.Nodes[name]; n == nil || !n.Address(false).IsValid() {
			return false
		}
	}
	return true
}

// ends returns the nodes' addresses of one family.
func (c Cluster) ends(from, to string, ip4 bool) (a, b netip.Addr, err error) {
	var addrs [2]netip.Addr
	for i, name := range []string{from, to} {
		n := c.Nodes[name]
		if n == nil || !n.Address(!ip4).IsValid() {
			return a, b, fmt.Errorf("node %s has no address of the packets' family", name)
		}
		addrs[i] = n.Address(!ip4).Addr()
	}
	return addrs[0], addrs[1], nil
}
