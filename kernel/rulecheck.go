package kernel

import (
	"cmp"
	"strings"
)

// check returns an error that says why no such rule can be in the chain.
func (r Rule) check(c Chain) error {
	if r.Other != "" {
		return invalid("what can't be said can't be written")
	}
	return cmp.Or(r.checkLinks(), r.checkFamily(), r.checkProtocol(), r.checkICMP(), r.checkAddrs(), r.checkPorts(),
		r.checkStatements(), r.checkVerdict(c))
}

func (r Rule) checkLinks() error {
	if r.NoInLink && r.InLink != "" {
		return invalid("a packet that came by no link came by none called %s", r.InLink)
	}
	return cmp.Or(checkLinkMatch(r.InLink), checkLinkMatch(r.OutLink))
}

func (r Rule) checkFamily() error {
	switch {
	case r.Family != 0 && r.Family != 4 && r.Family != 6:
		return invalid("there is no family %d", r.Family)
	case len(r.families()) > 1:
		return invalid("a packet's addresses are of one family, and so is its ICMP")
	case r.Fragment && r.PacketFamily() != 6:
		return invalid("fragments are asked for of IPv6 only")
	}
	return nil
}

func (r Rule) checkProtocol() error {
	switch {
	case r.Protocol != 0 && r.NotProtocol != 0:
		return invalid("a packet of protocol %d is not of protocol %d, or never", r.Protocol, r.NotProtocol)
	case r.DstPort != 0 && r.Protocol != ProtoTCP && r.Protocol != ProtoUDP, len(r.Ports) > 0 && portProtocols[r.Protocol] == "":
		return invalid("protocol %d has no ports", r.Protocol)
	case r.asksServices() && r.Protocol != 0 && portProtocols[r.Protocol] == "":
		return invalid("protocol %d has no ports, as services have", r.Protocol)
	case r.NoSYN && r.Protocol != ProtoTCP:
		return invalid("protocol %d has no flags", r.Protocol)
	case r.VNI != 0 && r.Protocol != ProtoUDP || r.VNI >= 1<<24:
		return invalid("a VNI is a number of 24 bits in UDP")
	}
	return nil
}

func (r Rule) checkICMP() error {
	if (r.ICMP != nil || r.NotICMP != nil) && r.Protocol != ProtoICMP && r.Protocol != ProtoICMPv6 {
		return invalid("protocol %d is not ICMP", r.Protocol)
	}
	return nil
}

func (r Rule) checkAddrs() error {
	for _, s := range []InSet{r.Src, r.Dst} {
		if s.Set == "" && s != (InSet{}) {
			return invalid("a set without a name")
		}
	}
	for _, a := range r.Addrs {
		if err := a.check(); err != nil {
			return err
		}
	}
	for _, asked := range r.Asks() {
		if err := checkName("set", asked.Name); err != nil {
			return err
		}
	}
	return nil
}

func (a AddrMatch) check() error {
	switch {
	case a.Place != Source && a.Place != Destination:
		return invalid("no address of a packet is its %q", a.Place)
	case (a.Set == "") != a.Prefix.IsValid():
		return invalid("an address is asked for in a set, or else in a prefix")
	case a.Prefix.IsValid() && (a.Prefix != a.Prefix.Masked() || a.Prefix.Addr().Is4In6()):
		return invalid("%v is not a masked prefix", a.Prefix)
	case a.Prefix.IsValid() && (a.Prefix.Addr().Is6() != a.IPv6 || a.Keys != KeysAddresses):
		return invalid("the prefix %v is of another family, or of a set", a.Prefix)
	case a.Keys == KeysAddresses:
	case a.Keys == KeysSources && a.Place != Source:
		return invalid("sources are asked for as source only")
	case a.Keys != KeysServices && a.Keys != KeysSources:
		return invalid("a set of %s holds no addresses", a.Keys)
	}
	return nil
}

func (r Rule) checkPorts() error {
	for _, p := range r.Ports {
		switch {
		case p.Place != Source && p.Place != Destination:
			return invalid("no port of a packet is its %q", p.Place)
		case p.Set != "" && (p.First != 0 || p.Last != 0):
			return invalid("a port is asked for in a set, or else in a range")
		case p.Last < p.First:
			return invalid("the ports end at %d, before they begin at %d", p.Last, p.First)
		}
	}
	return nil
}

func (r Rule) checkStatements() error {
	const states = StateInvalid | StateEstablished | StateRelated | StateNew | StateUntracked
	switch {
	case r.States&^states != 0:
		return invalid("connections have no state %#x", uint8(r.States&^states))
	case r.Limit != nil && (r.Limit.Rate == 0 || r.Limit.Burst == 0):
		return invalid("a limit of none a second, or with a burst of none")
	case r.Log != nil && !listable(r.Log.Prefix, maxPrefix):
		return invalid("the log's prefix is too long or has signs that can't be listed")
	case !listable(r.Comment, maxComment):
		return invalid("the comment is too long or has signs that can't be listed")
	}
	return nil
}

// listable says whether nft(8) can list a text and read it again.
func listable(text string, most int) bool {
	return len(text) <= most && !strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == '"' || c == '\\' || c > '~' })
}

func (r Rule) checkVerdict(c Chain) error {
	switch r.Verdict {
	case Jump, Goto:
		return checkName("chain", r.Target)
	case InVerdicts, OutVerdicts: // its target is one of the sets that it asks
		return nil
	case Accept, Drop, Return:
	case Continue:
		if !r.Counter && r.Log == nil {
			return invalid("a rule without a verdict counts or logs")
		}
	case Masquerade:
		if c.Type != ChainNAT || c.Hook != HookPostrouting {
			return invalid("only chains of type nat at hook postrouting masquerade")
		}
	case NoTrack:
		if c.Hook != HookNone && (c.Type != ChainFilter || c.Hook != HookPrerouting && c.Hook != HookOutput) {
			return invalid("only chains of type filter at hooks prerouting and output can keep packets from being tracked")
		}
	default:
		return invalid("there is no verdict %q", r.Verdict)
	}
	if r.Target != "" {
		return invalid("to %s leads nowhere: there is no %s", r.Verdict, r.Target)
	}
	return nil
}
