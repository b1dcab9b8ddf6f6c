package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// The pod's way out. The addresses exist nowhere: the pod has a permanent
// neighbour entry for its gateway that names the host side's MAC address.
var (
	// PodGateway4 is the next hop of a pod's IPv4 default route.
	PodGateway4 = netip.MustParseAddr("169.254.1.1")
	// PodGateway6 is the next hop of a pod's IPv6 default route, and the
	// link-local address of the host side.
	PodGateway6 = netip.MustParseAddr("fe80::ecee:eeff:feee:eeee")
)

// HostMAC is the hardware address of the host side of every pod's link. The
// links are separate, so one address does for all.
const HostMAC = "ee:ee:ee:ee:ee:ee"

// PodLinkPrefix begins the name of the host side of every pod's link.
const PodLinkPrefix = "cairn"

// PodLink returns the name of the host side of a pod's link: the prefix and ten
// hex digits of a hash of namespace/pod, 15 characters (IFNAMSIZ-1). An
// interface other than eth0 hashes to another name.
func PodLink(namespace, pod, ifName string) string {
	id := namespace + "/" + pod
	if ifName != "eth0" {
		id += "/" + ifName
	}
	sum := sha256.Sum256([]byte(id))
	return PodLinkPrefix + hex.EncodeToString(sum[:5])
}

// Attachment is a pod's link to its host.
type Attachment struct {
	Netns       string     // path of the pod's network namespace
	PodLink     string     // name inside the pod, by custom eth0
	HostLink    string     // name on the host, see PodLink
	ContainerID string     // of the sandbox; decides whose link it is
	Namespace   string     // the pod's namespace
	Pod         string     // the pod's name
	IPv4        netip.Addr // invalid: none
	IPv6        netip.Addr // invalid: none
	MTU         int        // bytes
}

// Attacher makes and removes a pod's link. The CNI plug-in uses it, in the
// host's network namespace.
type Attacher interface {
	// Attach makes the pair of links, configures the pod's side (addresses with
	// full prefix length, default routes, permanent neighbour entries for the
	// gateways, no duplicate-address detection), names the host side with its
	// PodAlias, sets it up and returns the pod side's MAC address. A host link
	// left by an earlier container of the same pod is replaced; the same
	// attachment twice is no error. On failure nothing is left behind.
	Attach(ctx context.Context, a Attachment) (mac string, err error)
	// Detach removes the host link if its alias names this container, and the
	// pod's side with it. Gone already, or another's, is no error; nor is a
	// network namespace that does not exist.
	Detach(ctx context.Context, a Attachment) error
	// SetMTU gives both sides of the link an MTU, of a's; everything else stays. The
	// pod's side never has the larger one, not even for a moment, so what it sends
	// always fits the host's side. Where the pod's side can't be set, neither is. A
	// link that is gone, or another container's, is ENODEV.
	SetMTU(ctx context.Context, a Attachment) error
	// Check returns an error that names what differs from what Attach made.
	Check(ctx context.Context, a Attachment) error
}

// aliasMark begins the alias of a pod's link.
const aliasMark = "cairn.network/pod"

// PodAlias returns the text that the host side of a's link carries as its alias
// (IFLA_IFALIAS, at most 255 bytes). It is enough to recover who has which
// address when everything else is lost; a pod name that is too long is left out.
func PodAlias(a Attachment) string {
	addr := func(ip netip.Addr) string {
		if !ip.IsValid() {
			return "-"
		}
		return ip.String()
	}
	base := strings.Join([]string{aliasMark, a.ContainerID, a.PodLink, addr(a.IPv4), addr(a.IPv6)}, " ")
	if full := base + " " + a.Namespace + " " + a.Pod; len(full) <= 255 {
		return full
	}
	return base + " - -"
}

// ParsePodAlias returns what PodAlias wrote, and false for any other text.
// Netns, HostLink and MTU are not part of it.
func ParsePodAlias(alias string) (Attachment, bool) {
	f := strings.Split(alias, " ")
	if len(f) != 7 || f[0] != aliasMark {
		return Attachment{}, false
	}
	a := Attachment{ContainerID: f[1], PodLink: f[2]}
	for i, ip := range []*netip.Addr{&a.IPv4, &a.IPv6} {
		if s := f[3+i]; s != "-" {
			parsed, err := netip.ParseAddr(s)
			if err != nil {
				return Attachment{}, false
			}
			*ip = parsed
		}
	}
	if f[5] != "-" {
		a.Namespace = f[5]
	}
	if f[6] != "-" {
		a.Pod = f[6]
	}
	return a, true
}

// IsPodLink says whether a link is the host side of a pod's: it has both the
// name and the mark.
func IsPodLink(l Link) bool {
	_, ok := ParsePodAlias(l.Alias)
	return ok && strings.HasPrefix(l.Name, PodLinkPrefix)
}

// maxLinkName is the greatest length of a link's name (IFNAMSIZ-1).
const maxLinkName = 15

// minMTU is the least that IPv6 works with (RFC 8200, section 5).
const minMTU = 1280

// Validate returns an error that names the field that makes the attachment
// impossible.
func (a Attachment) Validate() error {
	for _, n := range []struct{ field, name string }{{"pod link", a.PodLink}, {"host link", a.HostLink}} {
		if n.name == "" || n.name == "." || n.name == ".." || len(n.name) > maxLinkName || strings.ContainsAny(n.name, "/: \t\n\v\f\r") {
			return fmt.Errorf("%s %q is no name for a link", n.field, n.name)
		}
	}
	switch {
	case a.ContainerID == "" || strings.ContainsAny(a.ContainerID, " \n"):
		return fmt.Errorf("container ID %q is empty or has a space", a.ContainerID)
	case !a.IPv4.IsValid() && !a.IPv6.IsValid():
		return errors.New("no address")
	case a.IPv4.IsValid() && !a.IPv4.Is4():
		return fmt.Errorf("%v is no IPv4 address", a.IPv4)
	case a.IPv6.IsValid() && (!a.IPv6.Is6() || a.IPv6.Is4In6() || a.IPv6.Zone() != ""):
		return fmt.Errorf("%v is no IPv6 address", a.IPv6)
	case a.IPv6.IsValid() && a.MTU < minMTU:
		return fmt.Errorf("MTU %d is less than the %d that IPv6 needs", a.MTU, minMTU)
	case a.MTU < 68 || a.MTU > 65535:
		return fmt.Errorf("MTU %d is not from 68 to 65535", a.MTU)
	}
	return nil
}
