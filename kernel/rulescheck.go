package kernel

import (
	"fmt"
	"regexp"
	"strings"
	"syscall"
)

// Limits of what rules can say.
const (
	maxRuleName = 128 // bytes, of sets and chains; the kernel takes some more
	maxComment  = 128 // bytes, as nft(8) has it
)

// lowestNAT is the priority above which the kernel takes chains of type nat:
// that of connection tracking.
const lowestNAT = -200

// ruleName is what nft(8) takes for the name of a set or chain.
var ruleName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9/\\_.-]*$`)

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, syscall.EINVAL)...)
}

func checkName(kind, name string) error {
	if len(name) > maxRuleName || !ruleName.MatchString(name) {
		return invalid("%q is no name of a %s", name, kind)
	}
	return nil
}

// Check returns an error that says why no kernel can have this set under this
// name. It unwraps to EINVAL, as do those of elements and chains.
func (s Set) Check(name string) error {
	if s.Other != "" {
		return invalid("a set that is a %s can't be made", s.Other)
	}
	return checkName("set", name)
}

// Check returns an error that says why the element can't be in a set of this
// kind.
func (e Element) Check(s Set) error {
	switch {
	case !e.Prefix.IsValid() || e.Prefix != e.Prefix.Masked() || e.Prefix.Addr().Is4In6():
		return invalid("%v is not a masked prefix", e.Prefix)
	case e.Last.IsValid():
		return invalid("a range that is no prefix can't be added")
	case e.Prefix.Addr().Is6() != s.IPv6:
		return invalid("the set holds addresses of the other family")
	case !s.Ranges && !e.Prefix.IsSingleIP():
		return invalid("the set holds single addresses only")
	}
	return nil
}

// Check returns an error that says why no kernel can have this chain under this
// name; nil when it depends on the sets.
func (c Chain) Check(name string) error {
	if err := checkName("chain", name); err != nil {
		return err
	}
	switch {
	case c.Other != "":
		return invalid("a chain with %s can't be made", c.Other)
	case c.Hook == HookNone && (c.Type != "" || c.Priority != 0):
		return invalid("type and priority are of base chains only")
	case c.Hook == HookForward && c.Type == ChainNAT:
		return invalid("no address is translated at hook %s", c.Hook)
	case c.Type == ChainNAT && c.Priority <= lowestNAT:
		return invalid("priority %d is that of connection tracking or before it", c.Priority)
	}
	switch c.Hook {
	case HookNone, HookPrerouting, HookInput, HookForward, HookOutput, HookPostrouting:
	default:
		return invalid("there is no hook %q", c.Hook)
	}
	if c.Hook != HookNone && c.Type != ChainFilter && c.Type != ChainNAT {
		return invalid("there is no chain of type %q", c.Type)
	}
	for i, r := range c.Rules.List() {
		if err := r.check(c); err != nil {
			return fmt.Errorf("rule %d (%s): %w", i+1, r, err)
		}
	}
	return nil
}

// check returns an error that says why no such rule can be in the chain.
func (r Rule) check(c Chain) error {
	if r.Other != "" {
		return invalid("what can't be said can't be written")
	}
	for _, link := range []string{r.InLink, r.OutLink} {
		if err := checkLinkMatch(link); err != nil {
			return err
		}
	}
	for _, s := range []InSet{r.Src, r.Dst} {
		if s.Set == "" && s != (InSet{}) {
			return invalid("a set without a name")
		}
		if s.Set != "" {
			if err := checkName("set", s.Set); err != nil {
				return err
			}
		}
	}
	switch {
	case r.Src.Set != "" && r.Dst.Set != "" && r.Src.IPv6 != r.Dst.IPv6:
		return invalid("a packet's addresses are of one family")
	case r.DstPort != 0 && r.Protocol != ProtoTCP && r.Protocol != ProtoUDP:
		return invalid("protocol %d has no ports", r.Protocol)
	case r.VNI != 0 && r.Protocol != ProtoUDP || r.VNI >= 1<<24:
		return invalid("a VNI is a number of 24 bits in UDP")
	case r.Fragment && !r.Src.IPv6 && !r.Dst.IPv6:
		return invalid("fragments are asked for of IPv6 only")
	case len(r.Comment) > maxComment || strings.ContainsFunc(r.Comment, func(c rune) bool { return c < ' ' || c == '"' || c == '\\' || c > '~' }):
		return invalid("the comment is too long or has signs that can't be listed")
	}
	switch r.Verdict {
	case Accept, Drop:
	case Masquerade:
		if c.Type != ChainNAT || c.Hook != HookPostrouting {
			return invalid("only chains of type nat at hook postrouting masquerade")
		}
	case NoTrack:
		if c.Type != ChainFilter || c.Hook != HookPrerouting && c.Hook != HookOutput {
			return invalid("only chains of type filter at hooks prerouting and output can keep packets from being tracked")
		}
	default:
		return invalid("there is no verdict %q", r.Verdict)
	}
	return nil
}

// checkLinkMatch checks the name of a link, or the beginning of one before a *.
func checkLinkMatch(link string) error {
	name := strings.TrimSuffix(link, "*")
	bad := func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`/*"\`, c) }
	if len(link) > maxLinkName || strings.ContainsFunc(name, bad) || link == "*" {
		return invalid("%q is no name of a link", link)
	}
	return nil
}
