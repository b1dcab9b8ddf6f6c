package v1

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"cairn.network/cairn/selector"
)

// Check validates the defaulted object and returns every reason to refuse it as
// one line: "IPPool blue: spec.blockSize: Invalid value: 33: must be 20 to 32".
func Check(o Object) error { return Refusal(o, o.Validate()) }

// Refusal returns reasons to refuse an object as an error of one line, nil if
// there are none.
func Refusal(o Object, reasons field.ErrorList) error {
	if len(reasons) == 0 {
		return nil
	}
	texts := make([]string, len(reasons))
	for i, r := range reasons {
		texts[i] = r.Error()
	}
	return fmt.Errorf("%s: %s", title(o), strings.Join(texts, "; "))
}

// ValidateUpdate returns every reason why old can't become new: fields that
// never change. Both are defaulted, and of the same kind and name.
func ValidateUpdate(old, new Object) field.ErrorList {
	switch new := new.(type) {
	case *IPPool:
		if old, ok := old.(*IPPool); ok {
			return new.validateUpdate(old)
		}
	case *IPAMBlock:
		if old, ok := old.(*IPAMBlock); ok {
			return new.validateUpdate(old)
		}
	}
	return nil
}

// title returns how messages name an object: its kind and name.
func title(o Object) string {
	name := o.GetName()
	if o.GetNamespace() != "" {
		name = o.GetNamespace() + "/" + name
	}
	return strings.TrimRight(KindOf(o)+" "+name, " ")
}

// path returns the path of a field of the spec.
func path(name string) *field.Path { return field.NewPath("spec", name) }

// validMeta checks names, labels and annotations.
func validMeta(meta *metav1.ObjectMeta, namespaced bool) field.ErrorList {
	at := field.NewPath("metadata")
	errs := validation.ValidateObjectMeta(meta, namespaced, validation.NameIsDNSSubdomain, at)
	if meta.GenerateName != "" {
		errs = append(errs, field.Forbidden(at.Child("generateName"), "names are not generated; set metadata.name"))
	}
	return errs
}

// validName checks a reference to a cluster-scoped object.
func validName(at *field.Path, name string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	var errs field.ErrorList
	for _, reason := range validation.NameIsDNSSubdomain(name, false) {
		errs = append(errs, field.Invalid(at, name, reason))
	}
	return errs
}

// validText checks that a text is there.
func validText(at *field.Path, text string) field.ErrorList {
	if text == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	return nil
}

// validEnum checks that a value is one of those there are.
func validEnum[T ~string](at *field.Path, value T, values ...T) field.ErrorList {
	if slices.Contains(values, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(at, value, values)}
}

// validCIDR parses a range and checks that it is written by its first address.
func validCIDR(at *field.Path, text string) (netip.Prefix, field.ErrorList) {
	if text == "" {
		return netip.Prefix{}, field.ErrorList{field.Required(at, "")}
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return netip.Prefix{}, field.ErrorList{field.Invalid(at, text, "must be a range such as 10.244.0.0/16 or fd00:10:244::/48")}
	case p.Addr().Is4In6():
		return netip.Prefix{}, field.ErrorList{field.Invalid(at, text, "must not be an IPv4 range in the form of IPv6")}
	case p != p.Masked():
		return netip.Prefix{}, field.ErrorList{field.Invalid(at, text, fmt.Sprintf("must begin with the range's first address: %s", p.Masked()))}
	}
	return p, nil
}

// validAddress parses the text of an address of the field at.
func validAddress(at *field.Path, text string) (netip.Addr, field.ErrorList) {
	if text == "" {
		return netip.Addr{}, field.ErrorList{field.Required(at, "")}
	}
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return netip.Addr{}, field.ErrorList{field.Invalid(at, text, "must be an IP address")}
	case a.Is4In6():
		return netip.Addr{}, field.ErrorList{field.Invalid(at, text, "must not be an IPv4 address in the form of IPv6")}
	case a.Zone() != "":
		return netip.Addr{}, field.ErrorList{field.Invalid(at, text, "must not have a zone")}
	}
	return a, nil
}

// special returns what the addresses of a range are reserved for, as far as
// that keeps them from being a pod's or a node's; else "".
func special(p netip.Prefix) string {
	for _, r := range []struct{ cidr, use string }{
		{"0.0.0.0/8", "unspecified addresses"},
		{"127.0.0.0/8", "loopback addresses"},
		{"169.254.0.0/16", "link-local addresses"},
		{"224.0.0.0/4", "multicast addresses"},
		{"255.255.255.255/32", "the broadcast address"},
		{"::/128", "the unspecified address"},
		{"::1/128", "the loopback address"},
		{"fe80::/10", "link-local addresses"},
		{"ff00::/8", "multicast addresses"},
	} {
		if netip.MustParsePrefix(r.cidr).Overlaps(p) {
			return fmt.Sprintf("%s (%s)", r.use, r.cidr)
		}
	}
	return ""
}

// maxSelector is the length of the longest selector in a resource, in bytes, as
// in Calico.
const maxSelector = 1024

// validSelector checks that a selector parses; an empty one is none.
func validSelector(at *field.Path, text string) field.ErrorList {
	if len(text) > maxSelector {
		return field.ErrorList{field.TooLong(at, text, maxSelector)}
	}
	_, err := selector.Parse(text)
	var syntax *selector.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return field.ErrorList{field.Invalid(at, text, syntax.Error())}
	case err != nil:
		return field.ErrorList{field.InternalError(at, err)}
	}
	return nil
}

// validAS checks the number of an autonomous system.
func validAS(at *field.Path, as uint32) field.ErrorList {
	const asTrans = 23456
	switch as {
	case 0:
		return field.ErrorList{field.Invalid(at, int64(as), fmt.Sprintf("must be 1 to %d", uint32(math.MaxUint32)))}
	case asTrans:
		return field.ErrorList{field.Invalid(at, int64(as), "stands for numbers of four octets (AS_TRANS, RFC 6793), and is nobody's")}
	}
	return nil
}

// validPort checks the number of a TCP port.
func validPort(at *field.Path, port int32) field.ErrorList {
	var errs field.ErrorList
	for _, reason := range utilvalidation.IsValidPortNum(int(port)) {
		errs = append(errs, field.Invalid(at, port, reason))
	}
	return errs
}

// validSeconds checks a time that travels as a number of whole seconds. Nil is
// none.
func validSeconds(at *field.Path, d *metav1.Duration, most time.Duration) field.ErrorList {
	if d == nil || d.Duration >= time.Second && d.Duration <= most && d.Duration%time.Second == 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(at, d.Duration.String(), fmt.Sprintf("must be whole seconds, 1s to %s", most))}
}
