package kernel

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"syscall"
)

// Limits of what rules can say.
const (
	maxRuleName = 128 // bytes, of sets and chains; the kernel takes some more
	maxComment  = 128 // bytes, as nft(8) has it
	maxPrefix   = 127 // bytes, of a log's; the kernel's NF_LOG_PREFIXLEN has one more, for the end
)

// lowestNAT is the priority above which the kernel takes chains of type nat:
// that of connection tracking.
const lowestNAT = -200

// ruleName is what nft(8) takes for the name of a set or chain, but for its own words.
var ruleName = regexp.MustCompile(`^[a-zA-Z_.][a-zA-Z0-9/_.-]*$`)

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
	switch s.Keys {
	case KeysAddresses, KeysPorts, KeysServices, KeysSources, KeysLinks:
	default:
		return invalid("there is no set of %q", s.Keys)
	}
	switch {
	case s.Other != "":
		return invalid("a set that is a %s can't be made", s.Other)
	case s.Ranges && s.Keys != KeysAddresses && s.Keys != KeysPorts:
		return invalid("a set of %s has no ranges", s.Keys)
	case s.IPv6 && (s.Keys == KeysPorts || s.Keys == KeysLinks):
		return invalid("a set of %s has no family", s.Keys)
	}
	if err := s.checkShared(name); err != nil {
		return err
	}
	return checkName("set", name)
}

// Check returns an error that says why the element can't be in a set of this
// kind.
func (e Element) Check(s Set) error {
	switch {
	case s.Keys == KeysLinks:
		return invalid("the entries of a verdict map are among the chains")
	case s.Keys == KeysPorts:
		return e.checkPorts(s)
	case !e.Prefix.IsValid() || e.Prefix != e.Prefix.Masked() || e.Prefix.Addr().Is4In6():
		return invalid("%v is not a masked prefix", e.Prefix)
	case e.Last().IsValid():
		return invalid("a range that is no prefix can't be added")
	case e.Prefix.Addr().Is6() != s.IPv6:
		return invalid("the set holds addresses of the other family")
	case !s.Ranges && !e.Prefix.IsSingleIP():
		return invalid("the set holds single addresses only")
	case (s.Keys == KeysServices) != (e.Protocol != 0) || s.Keys != KeysServices && e.Port != 0 || e.LastPort != 0:
		return invalid("protocol and port are of services only, and a service has one of each")
	case s.Keys == KeysSources:
		return checkLink(e.Beside)
	case e.Beside != "":
		return invalid("links are of sources only")
	}
	return nil
}

func (e Element) checkPorts(s Set) error {
	switch {
	case e != (Element{Set: e.Set, Port: e.Port, LastPort: e.LastPort}):
		return invalid("the set holds ports only")
	case e.LastPort != 0 && e.LastPort <= e.Port:
		return invalid("the range of ports ends before it begins, or where")
	case e.LastPort != 0 && !s.Ranges:
		return invalid("the set holds single ports only")
	}
	return nil
}

// Check returns an error that says why no kernel can have this chain, or entry, under
// this key; nil when it depends on the sets and on other chains.
func (c Chain) Check(key string) error { return c.Open().Check(key) }

// Check does what the chain's does.
func (c OpenChain) Check(key string) error {
	if verdicts, link, ok := ParseEntryKey(key); ok {
		return c.checkEntry(verdicts, link)
	}
	if err := checkName("chain", key); err != nil {
		return err
	}
	switch {
	case c.Other != "":
		return invalid("a chain with %s can't be made", c.Other)
	case c.To != "":
		return invalid("only an entry in a verdict map leads to a chain")
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
	for i, r := range c.List {
		if err := r.check(c.Chain); err != nil {
			return fmt.Errorf("rule %d (%s): %w", i+1, r, err)
		}
	}
	return nil
}

func (c Chain) checkEntry(verdicts, link string) error {
	if err := cmp.Or(checkName("set", verdicts), checkLink(link)); err != nil {
		return err
	}
	if c != (Chain{To: c.To}) {
		return invalid("an entry in a verdict map leads to a chain and is nothing else")
	}
	return checkName("chain", c.To)
}

// checkLink checks the name of one link.
func checkLink(link string) error {
	if link == "" || strings.HasSuffix(link, "*") {
		return invalid("%q is no name of a link", link)
	}
	return checkLinkMatch(link)
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
