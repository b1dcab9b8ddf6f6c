package cni

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// pod is what the runtime says of the container that it calls the plug-in for.
type pod struct {
	containerID string
	ifName      string // inside the pod
	netns       string // path; "": gone
	namespace   string // "" for a container that is no pod of Kubernetes
	name        string // the container's ID for one that is none
}

func (p pod) String() string {
	if p.namespace == "" {
		return "container " + p.containerID
	}
	return fmt.Sprintf("pod %s/%s (container %s)", p.namespace, p.name, p.containerID)
}

// parsePod reads what the runtime says, or returns an error of code 4.
func parsePod(args *skel.CmdArgs) (pod, error) {
	p := pod{containerID: args.ContainerID, ifName: args.IfName, netns: args.Netns, name: args.ContainerID}
	ignore := false
	var unknown []string
	if args.Args != "" {
		for pair := range strings.SplitSeq(args.Args, ";") {
			key, value, ok := strings.Cut(pair, "=")
			if !ok {
				return pod{}, invalidArgs("%q is not of the form key=value", pair)
			}
			switch key {
			case "IgnoreUnknown":
				ignore = value == "1" || strings.EqualFold(value, "true")
			case "K8S_POD_NAMESPACE":
				p.namespace = value
			case "K8S_POD_NAME":
				if value != "" {
					p.name = value
				}
			case "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID":
			default:
				unknown = append(unknown, key)
			}
		}
	}
	if len(unknown) > 0 && !ignore {
		return pod{}, invalidArgs("unknown keys %s, and IgnoreUnknown is not set", strings.Join(unknown, ", "))
	}
	// Names become part of file names, link aliases and resources.
	if p.namespace != "" && !isName(p.namespace) {
		return pod{}, invalidArgs("K8S_POD_NAMESPACE: %q is no name of a namespace", p.namespace)
	}
	if p.name != p.containerID && !isName(p.name) {
		return pod{}, invalidArgs("K8S_POD_NAME: %q is no name of a pod", p.name)
	}
	return p, nil
}

// isName says whether it is a name of Kubernetes (RFC 1123).
func isName(name string) bool {
	return regexp.MustCompile(`^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$`).MatchString(name)
}

func invalidArgs(format string, args ...any) error {
	return types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS: "+fmt.Sprintf(format, args...), "")
}
