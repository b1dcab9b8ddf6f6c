package cni

import (
	"fmt"
	"strings"

	"cairn.network/cairn/cni/protocol"
)

// rawPort is a port that the pod has a name for, as args.cni.ports has it.
type rawPort struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"` // in capitals or not; default TCP
	Port     int    `json:"port"`
}

// namedPorts returns the ports that a pod has names for.
func namedPorts(raw []rawPort) ([]protocol.Port, error) {
	var ports []protocol.Port
	for i, r := range raw {
		p := protocol.Port{Name: r.Name, Protocol: strings.ToUpper(r.Protocol), Port: uint16(r.Port)}
		if p.Protocol == "" {
			p.Protocol = "TCP"
		}
		switch {
		case !isPortName(p.Name):
			return nil, fmt.Errorf("args.cni.ports[%d].name: must be 1 to 15 of a-z, 0-9 and -, with a letter, and begin and end without -; not %q", i, r.Name)
		case p.Protocol != "TCP" && p.Protocol != "UDP" && p.Protocol != "SCTP":
			return nil, fmt.Errorf("args.cni.ports[%d].protocol: must be TCP, UDP or SCTP, not %q", i, r.Protocol)
		case r.Port < 1 || r.Port > 65535:
			return nil, fmt.Errorf("args.cni.ports[%d].port: must be 1 to 65535, not %d", i, r.Port)
		}
		ports = append(ports, p)
	}
	return ports, nil
}

// isPortName says whether it is a name for a port as Kubernetes takes it (RFC 6335,
// section 5.1, in small letters).
func isPortName(name string) bool {
	const letters, rest = "abcdefghijklmnopqrstuvwxyz", "0123456789-"
	return len(name) <= 15 && strings.ContainsAny(name, letters) && strings.Trim(name, letters+rest) == "" &&
		!strings.HasPrefix(name, "-") && !strings.HasSuffix(name, "-") && !strings.Contains(name, "--")
}

// account checks the name of a pod's service account; "" is none.
func account(name string) (string, error) {
	if name != "" && !isName(name) {
		return "", fmt.Errorf("args.cni.serviceAccount: %q is no name of a service account", name)
	}
	return name, nil
}
