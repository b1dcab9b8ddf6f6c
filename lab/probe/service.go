package probe

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Service is what a server answers at.
type Service struct {
	Protocol Protocol // TCP, UDP, SCTP or ICMP
	Port     uint16   // 0 of ICMP
}

// Services returns all that answers on a port: TCP, UDP and SCTP.
func Services(port uint16) []Service { return []Service{{TCP, port}, {UDP, port}, {SCTP, port}} }

// ParseServices reads a list such as 8080,53/udp: ports, each with its protocol; without
// one it stands for all that have ports.
func ParseServices(list string) ([]Service, error) {
	var all []Service
	for text := range strings.SplitSeq(list, ",") {
		number, proto, one := strings.Cut(text, "/")
		port, err := strconv.ParseUint(number, 10, 16)
		if err != nil || port == 0 {
			return nil, fmt.Errorf("port %q: must be 1 to 65535", number)
		}
		services := Services(uint16(port))
		if one {
			services = slices.DeleteFunc(services, func(s Service) bool { return string(s.Protocol) != proto })
			if len(services) == 0 {
				return nil, fmt.Errorf("port %s: protocol %q: must be tcp, udp or sctp", number, proto)
			}
		}
		for _, s := range services {
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	return all, nil
}
