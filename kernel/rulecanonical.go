package kernel

import "slices"

// PacketFamily returns 4 or 6 where the rule matches packets of that family only,
// whether it says so or asks for addresses or ICMP; 0: both. Of a rule that
// contradicts itself it is either.
func (r Rule) PacketFamily() uint8 {
	if f := r.families(); len(f) > 0 {
		return f[0]
	}
	return 0
}

// families returns the families that parts of the rule are about, each once.
func (r Rule) families() (found []uint8) {
	note := func(asked, v6 bool) {
		f := uint8(4)
		if v6 {
			f = 6
		}
		if asked && !slices.Contains(found, f) {
			found = append(found, f)
		}
	}
	note(r.Family != 0, r.Family == 6)
	note(r.Src.Set != "", r.Src.IPv6)
	note(r.Dst.Set != "", r.Dst.IPv6)
	for _, a := range r.Addrs {
		note(true, a.IPv6)
	}
	note(r.ICMP != nil || r.NotICMP != nil, r.Protocol == ProtoICMPv6)
	return found
}

// impliesFamily says whether what else the rule asks for has it match packets of one
// family only.
func (r Rule) impliesFamily() bool {
	return r.Src.Set != "" || r.Dst.Set != "" || len(r.Addrs) > 0 || r.ICMP != nil || r.NotICMP != nil
}

// canonical returns the one rule of all that mean the same. Rules that are wrong stay
// so.
func (r Rule) canonical() Rule {
	if r.impliesFamily() && len(r.families()) == 1 {
		r.Family = 0
	}
	if i := slices.IndexFunc(r.Ports, PortMatch.isPlain); i >= 0 && r.DstPort == 0 && (r.Protocol == ProtoTCP || r.Protocol == ProtoUDP) {
		r.DstPort = r.Ports[i].First
		r.Ports = slices.Delete(slices.Clone(r.Ports), i, i+1)
	}
	r.ICMP, r.NotICMP = r.ICMP.canonical(), r.NotICMP.canonical()
	r.Src, r.Addrs = plainest(r.Src, r.Addrs, Source)
	r.Dst, r.Addrs = plainest(r.Dst, r.Addrs, Destination)
	return r
}

// plainest moves the first match of a place that an InSet can say into in, unless that
// is taken.
func plainest(in InSet, addrs []AddrMatch, place Place) (InSet, []AddrMatch) {
	i := slices.IndexFunc(addrs, func(a AddrMatch) bool { return a.Place == place && a.isPlain() })
	if i < 0 || in.Set != "" {
		return in, addrs
	}
	in = InSet{Set: addrs[i].Set, IPv6: addrs[i].IPv6, Not: addrs[i].Not}
	return in, slices.Delete(slices.Clone(addrs), i, i+1)
}

// canonical leaves no code where any will do.
func (i *ICMP) canonical() *ICMP {
	if i == nil || !i.AnyCode {
		return i
	}
	return &ICMP{Type: i.Type, AnyCode: true}
}

// isPlain says whether DstPort can say it.
func (p PortMatch) isPlain() bool {
	return p.Place == Destination && !p.Not && p.Set == "" && p.First == p.Last && p.First != 0
}

// isPlain says whether an InSet can say it.
func (a AddrMatch) isPlain() bool {
	return a.Set != "" && a.Keys == KeysAddresses && !a.Prefix.IsValid()
}

// Asked is a set that a rule asks for, and of what kind it must be.
type Asked struct {
	Name string
	Keys Keys
	IPv6 bool
}

// Fits says whether a set is of the kind.
func (a Asked) Fits(s Set) bool { return s.Other == "" && s.Keys == a.Keys && s.IPv6 == a.IPv6 }

// Asks returns the sets that the rule asks, verdict maps included.
func (r Rule) Asks() []Asked {
	var asked []Asked
	for _, s := range []InSet{r.Src, r.Dst} {
		if s.Set != "" {
			asked = append(asked, Asked{s.Set, KeysAddresses, s.IPv6})
		}
	}
	for _, a := range r.Addrs {
		if a.Set != "" {
			asked = append(asked, Asked{a.Set, a.Keys, a.IPv6})
		}
	}
	for _, p := range r.Ports {
		if p.Set != "" {
			asked = append(asked, Asked{p.Set, KeysPorts, false})
		}
	}
	if r.Verdict == InVerdicts || r.Verdict == OutVerdicts {
		asked = append(asked, Asked{r.Target, KeysLinks, false})
	}
	return asked
}

// LeadsTo returns the chain that the rule jumps or goes to; "": none.
func (r Rule) LeadsTo() string {
	if r.Verdict == Jump || r.Verdict == Goto {
		return r.Target
	}
	return ""
}
