package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"
)

// Link is a network device as the host has it (rtnetlink(7), RTM_NEWLINK).
type Link struct {
	Name  string
	Index int    // changes when a link is deleted and made again
	Kind  string // "veth", "bridge", "vxlan", …; "" for a physical device
	MTU   int    // bytes
	Up    bool   // administratively up and with carrier (IFF_UP and IFF_LOWER_UP)
	Alias string // free text on the link (IFLA_IFALIAS); Cairn's mark, see PodAlias and TunnelAlias
	// Driver is the driver of a physical device (ethtool(8) -i); "" for others.
	Driver string
}

// Addr is an address on a link of the host, with the length of the prefix that
// is on that link.
type Addr struct {
	Link   string
	Prefix netip.Prefix // not masked: the address and its prefix length
}

func (a Addr) String() string { return fmt.Sprintf("%s dev %s", a.Prefix, a.Link) }

// Check returns an error that says why a is no address for a tunnel device: it has
// one of full length. It unwraps to the errno EINVAL.
func (a Addr) Check() error {
	ip := a.Prefix.Addr()
	if !a.Prefix.IsSingleIP() || ip.Is4In6() || ip.IsMulticast() || ip.IsUnspecified() || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
		return fmt.Errorf("%v is no address of a tunnel device: %w", a.Prefix, syscall.EINVAL)
	}
	return nil
}

// Host is what the kernel of this host has now, as far as desired state depends
// on it. It is immutable: share it, never change it.
type Host struct {
	Links map[string]Link   // by name
	Addrs map[Addr]struct{} // every address that is not tentative or failed
	// Foreign holds the unicast routes of the main table that are not Cairn's,
	// connected ones included: by these next hops are resolved. Those of
	// link-local prefixes are left out: every link has one with the same key.
	Foreign map[RouteKey]Route
	Release string // of the kernel (uname(2)), such as 6.1.0-41-amd64
}

// Event is a change of the host.
type Event struct {
	Host *Host // the host after the change
	// Routes holds the routes of ours that the kernel says were changed, by us or
	// by others; nil: it is gone, at least in part, or another's may have taken its
	// place.
	Routes map[RouteKey]*Route
	// Neighbours and Forwarding hold in the same way what was changed of the entries
	// on tunnel devices.
	Neighbours map[Neighbour]*MAC
	Forwarding map[Forwarding]*netip.Addr
	// Tunnels holds the names of tunnel devices, Cairn's or of one of its names, of
	// which the kernel said anything: made, changed by us or by others, gone, another
	// address. What it says leaves out some parameters, and an address that comes and
	// goes at once leaves no trace in Host: so read the tables of devices and addresses
	// again. Nothing will differ after a change of ours.
	Tunnels []string
	// Rules says that somebody else changed our table of nftables.
	Rules bool
	// Down holds the names of links that went down, vanished, were made anew or
	// lost an address that routes may have as their source (of IPv4, or of a tunnel
	// device): the kernel drops or changes routes with them without a word.
	Down []string
	// Overrun says that events were lost: whatever was read before is in doubt.
	Overrun bool
}

// Watcher tells about changes of the host.
type Watcher interface {
	// Watch calls f with a complete Host as soon as it has one, then after each
	// change; changes that come together may be told together. It makes good
	// lost events by reading everything again. It returns when ctx is done (with
	// nil) or the kernel can't be asked. f must not block.
	Watch(ctx context.Context, f func(Event)) error
}
