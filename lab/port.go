package lab

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"cairn.network/cairn/lab/probe"
)

// Port is a port that a pod has a name for.
type Port struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"` // TCP, UDP or SCTP
	Port     uint16 `json:"port"`
}

// ParsePort reads a named port such as http=8080 or dns=53/udp; the protocol is TCP
// unless it is given.
func ParsePort(text string) (Port, error) {
	name, where, named := strings.Cut(text, "=")
	if !named {
		return Port{}, fmt.Errorf("port %q: want NAME=PORT or NAME=PORT/PROTOCOL", text)
	}
	if msgs := validation.IsValidPortName(name); len(msgs) > 0 {
		return Port{}, fmt.Errorf("port %q: name %s", text, msgs[0])
	}
	number, proto, given := strings.Cut(where, "/")
	if !given {
		proto = "tcp"
	}
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil || port == 0 {
		return Port{}, fmt.Errorf("port %q: must be 1 to 65535", text)
	}
	if !slices.Contains([]string{"tcp", "udp", "sctp"}, strings.ToLower(proto)) {
		return Port{}, fmt.Errorf("port %q: the protocol must be tcp, udp or sctp", text)
	}
	return Port{Name: name, Protocol: strings.ToUpper(proto), Port: uint16(port)}, nil
}

// serverPorts returns the ports that a pod's server answers on, as the pod server is
// told.
func (p Pod) serverPorts() string {
	list := []string{strconv.Itoa(probe.Port)}
	for _, of := range p.Ports {
		list = append(list, fmt.Sprintf("%d/%s", of.Port, strings.ToLower(of.Protocol)))
	}
	return strings.Join(list, ",")
}
