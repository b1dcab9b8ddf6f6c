package v1

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// BlockName returns the name of the IPAMBlock with this CIDR: all groups of the
// address and the prefix length, joined by dashes, such as 10-244-1-64-26.
func BlockName(cidr netip.Prefix) string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(cidr.Addr().StringExpanded()) + "-" + strconv.Itoa(cidr.Bits())
}

// ParseBlockName returns the CIDR that BlockName made the name from.
func ParseBlockName(name string) (netip.Prefix, error) {
	sep := "."
	if strings.Count(name, "-") > 4 {
		sep = ":"
	}
	groups := strings.Split(name, "-")
	last := len(groups) - 1
	cidr, err := netip.ParsePrefix(strings.Join(groups[:last], sep) + "/" + groups[last])
	if err != nil || BlockName(cidr) != name {
		return netip.Prefix{}, fmt.Errorf("%q is not the name of an IPAMBlock, such as %s", name, BlockName(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, 1, 64}), 26)))
	}
	return cidr, nil
}
