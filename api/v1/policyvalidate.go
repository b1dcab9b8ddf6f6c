package v1

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"cairn.network/cairn/selector"
)

// Limits of policies, as in Calico.
const (
	maxRules = 1024 // of a direction
	maxNets  = 256  // of each list
	maxPorts = 50   // of each list
)

// validate returns every reason to refuse what a policy says. Rules of a namespaced
// one may leave out the namespaces of Services.
func (s *NetworkPolicySpec) validate(namespaced bool) field.ErrorList {
	errs := validName(path("tier"), s.Tier)
	errs = append(errs, validOrder(path("order"), s.Order)...)
	errs = append(errs, validLabelSelector(path("selector"), s.Selector)...)
	errs = append(errs, validLabelSelector(path("serviceAccountSelector"), s.ServiceAccountSelector)...)
	seen := map[PolicyType]bool{}
	for i, t := range s.Types {
		at := path("types").Index(i)
		errs = append(errs, validEnum(at, t, PolicyIngress, PolicyEgress)...)
		if seen[t] {
			errs = append(errs, field.Duplicate(at, t))
		}
		seen[t] = true
	}
	for i, h := range s.PerformanceHints {
		errs = append(errs, validEnum(path("performanceHints").Index(i), h, AssumeNeededOnEveryNode)...)
	}
	for _, dir := range []struct {
		name  string
		rules []Rule
	}{{"ingress", s.Ingress}, {"egress", s.Egress}} {
		at := path(dir.name)
		if len(dir.rules) > maxRules {
			errs = append(errs, field.TooMany(at, len(dir.rules), maxRules))
			continue
		}
		for i := range dir.rules {
			errs = append(errs, dir.rules[i].validate(at.Index(i), dir.name == "egress", namespaced)...)
		}
	}
	return errs
}

// validOrder checks a place among others. Nil is last.
func validOrder(at *field.Path, order *float64) field.ErrorList {
	if order != nil && (math.IsNaN(*order) || math.IsInf(*order, 0)) {
		return field.ErrorList{field.Invalid(at, fmt.Sprint(*order), "must be a finite number")}
	}
	return nil
}

// validLabelSelector checks a selector of endpoints, namespaces or service accounts.
func validLabelSelector(at *field.Path, text string) field.ErrorList {
	errs := validSelector(at, text)
	if s, err := selector.Parse(text); err == nil && s.HasGlobal() {
		errs = append(errs, field.Invalid(at, text, "must not contain global(): only namespaceSelector of a rule's source or destination may"))
	}
	return errs
}

func (r *Rule) validate(at *field.Path, egress, namespaced bool) field.ErrorList {
	errs := validEnum(at.Child("action"), r.Action, ActionAllow, ActionDeny, ActionLog, ActionPass)
	if r.HTTP != nil {
		errs = append(errs, field.Forbidden(at.Child("http"), "Cairn enforces layers 3 and 4 only, and would let through or drop all of HTTP alike"))
	}
	for _, p := range []struct {
		name     string
		protocol *Protocol
	}{{"protocol", r.Protocol}, {"notProtocol", r.NotProtocol}} {
		if p.protocol != nil {
			errs = append(errs, validProtocol(at.Child(p.name), *p.protocol)...)
		}
	}
	errs = append(errs, r.validVersion(at)...)
	errs = append(errs, r.validICMP(at.Child("icmp"), r.ICMP)...)
	errs = append(errs, r.validICMP(at.Child("notICMP"), r.NotICMP)...)
	for _, end := range []struct {
		name     string
		peer     *EntityRule
		services bool // may have them
	}{{"source", &r.Source, !egress}, {"destination", &r.Destination, egress}} {
		at := at.Child(end.name)
		errs = append(errs, end.peer.validate(at, r.IPVersion)...)
		errs = append(errs, end.peer.validPorts(at, r.Protocol)...)
		errs = append(errs, end.peer.validServices(at, end.services, namespaced)...)
	}
	return errs
}

// validVersion checks that a rule's version of IP exists and agrees with its protocol.
func (r *Rule) validVersion(at *field.Path) field.ErrorList {
	if r.IPVersion == nil {
		return nil
	}
	at = at.Child("ipVersion")
	v := *r.IPVersion
	if v != 4 && v != 6 {
		return field.ErrorList{field.Invalid(at, v, "must be 4 or 6")}
	}
	if r.Protocol != nil {
		if of := r.Protocol.ipVersion(); of != 0 && of != v {
			return field.ErrorList{field.Invalid(at, v, fmt.Sprintf("must be %d with protocol %s", of, *r.Protocol))}
		}
	}
	return nil
}

func (r *Rule) validICMP(at *field.Path, icmp *ICMPFields) field.ErrorList {
	if icmp == nil {
		return nil
	}
	var errs field.ErrorList
	if r.Protocol == nil || r.Protocol.ipVersion() == 0 {
		errs = append(errs, field.Forbidden(at, "may be set together with protocol ICMP or ICMPv6 only"))
	}
	if icmp.Type == nil {
		errs = append(errs, field.Required(at.Child("type"), ""))
	} else if *icmp.Type < 0 || *icmp.Type > 254 {
		errs = append(errs, field.Invalid(at.Child("type"), *icmp.Type, "must be 0 to 254"))
	}
	if icmp.Code != nil && (*icmp.Code < 0 || *icmp.Code > 255) {
		errs = append(errs, field.Invalid(at.Child("code"), *icmp.Code, "must be 0 to 255"))
	}
	return errs
}

// validate checks all of an end of packets but ports and Services.
func (e *EntityRule) validate(at *field.Path, ipVersion *int) field.ErrorList {
	errs := validNets(at.Child("nets"), e.Nets, maxNets, ipVersion)
	errs = append(errs, validNets(at.Child("notNets"), e.NotNets, maxNets, ipVersion)...)
	errs = append(errs, validLabelSelector(at.Child("selector"), e.Selector)...)
	errs = append(errs, validLabelSelector(at.Child("notSelector"), e.NotSelector)...)
	errs = append(errs, validSelector(at.Child("namespaceSelector"), e.NamespaceSelector)...)
	if a := e.ServiceAccounts; a != nil {
		at := at.Child("serviceAccounts")
		for i, name := range a.Names {
			errs = append(errs, validName(at.Child("names").Index(i), name)...)
		}
		errs = append(errs, validLabelSelector(at.Child("selector"), a.Selector)...)
	}
	return errs
}

func (e *EntityRule) validPorts(at *field.Path, p *Protocol) field.ErrorList {
	var errs field.ErrorList
	for _, list := range []struct {
		name  string
		ports []Port
	}{{"ports", e.Ports}, {"notPorts", e.NotPorts}} {
		at := at.Child(list.name)
		if len(list.ports) > 0 && (p == nil || !p.HasPorts()) {
			errs = append(errs, field.Forbidden(at, "may be set together with protocol TCP, UDP, SCTP or UDPLite only"))
		}
		if len(list.ports) > maxPorts {
			errs = append(errs, field.TooMany(at, len(list.ports), maxPorts))
		}
		for i, port := range list.ports {
			errs = append(errs, validPortRange(at.Index(i), port)...)
		}
	}
	return errs
}

// validServices checks that a Service stands alone, and where Services may.
func (e *EntityRule) validServices(at *field.Path, allowed, namespaced bool) field.ErrorList {
	s := e.Services
	if s == nil {
		return nil
	}
	var errs field.ErrorList
	if !allowed {
		errs = append(errs, field.Forbidden(at.Child("services"), "may be the destination of egress rules and the source of ingress rules only"))
	}
	for _, other := range []struct {
		name string
		set  bool
	}{
		{"nets", len(e.Nets) > 0}, {"notNets", len(e.NotNets) > 0}, {"selector", e.Selector != ""},
		{"notSelector", e.NotSelector != ""}, {"namespaceSelector", e.NamespaceSelector != ""},
		{"serviceAccounts", e.ServiceAccounts != nil}, {"ports", len(e.Ports) > 0}, {"notPorts", len(e.NotPorts) > 0},
	} {
		if other.set {
			errs = append(errs, field.Forbidden(at.Child(other.name), "may not be set together with services"))
		}
	}
	errs = append(errs, validName(at.Child("services", "name"), s.Name)...)
	if s.Namespace != "" || !namespaced {
		errs = append(errs, validName(at.Child("services", "namespace"), s.Namespace)...)
	}
	return errs
}

// validNets checks ranges and addresses: at most so many, and of this version of IP
// unless it is nil.
func validNets(at *field.Path, nets []string, most int, ipVersion *int) field.ErrorList {
	var errs field.ErrorList
	if len(nets) > most {
		errs = append(errs, field.TooMany(at, len(nets), most))
	}
	for i, text := range nets {
		p, netErrs := validNet(at.Index(i), text)
		errs = append(errs, netErrs...)
		if p.IsValid() && ipVersion != nil && p.Addr().Is6() != (*ipVersion == 6) {
			errs = append(errs, field.Invalid(at.Index(i), text, fmt.Sprintf("is not of ipVersion %d", *ipVersion)))
		}
	}
	return errs
}

// validNet parses a range, or an address as the range of it alone.
func validNet(at *field.Path, text string) (netip.Prefix, field.ErrorList) {
	if text == "" || strings.Contains(text, "/") {
		return validCIDR(at, text)
	}
	a, errs := validAddress(at, text)
	if len(errs) > 0 {
		return netip.Prefix{}, errs
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// ParseNets returns the valid ones of ranges and addresses, as ranges.
func ParseNets(texts []string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		if p, errs := validNet(nil, text); len(errs) == 0 {
			all = append(all, p)
		}
	}
	return all
}
