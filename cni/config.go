package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"cairn.network/cairn/cni/protocol"
)

// Bounds and defaults of the configuration.
const (
	defaultTimeout        = 30 * time.Second
	defaultConnectTimeout = 5 * time.Second
	// maxTimeout is less than the time after which an agent takes addresses back
	// that have no link.
	maxTimeout = 45 * time.Second
	// minMTU is the least that IPv6 needs (RFC 8200, section 5).
	minMTU = 1280
	maxMTU = 65535
)

// config is a valid network configuration.
type config struct {
	cniVersion     string
	network        string
	socket, spool  string
	mtu            int  // bytes; 0: the agent's choice
	ipv4, ipv6     bool // neither: one of each family that has a pool
	pools          []string
	timeout        time.Duration // of a whole ADD
	connectTimeout time.Duration // of an agent that is not there
	dns            types.DNS
	labels         map[string]string
	serviceAccount string // "": not told
	ports          []protocol.Port
	prev           *types100.Result   // nil: none
	valid          []protocol.Sandbox // for GC
	hasValid       bool               // the runtime says which containers are valid
}

// rawConfig is the configuration as it is written. Keys that CNI defines and
// this plug-in has no use for are in standardKeys.
type rawConfig struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	// Socket is the agent's; default protocol.DefaultSocket.
	Socket string `json:"socket"`
	// Spool is where DELs are left for the agent; default protocol.DefaultSpool.
	Spool string `json:"spool"`
	// MTU of the pod's link in bytes; 0 or left out: the agent's choice.
	MTU  int     `json:"mtu"`
	IPAM rawIPAM `json:"ipam"`
	// Timeout bounds a whole ADD. Default 30s, at most 45s.
	Timeout string `json:"timeout"`
	// ConnectTimeout is how long an ADD waits for an agent that is not there or
	// not ready. Default 5s.
	ConnectTimeout string `json:"connect_timeout"`

	DNS  types.DNS `json:"dns"`
	Args struct {
		CNI struct {
			Labels         []struct{ Key, Value string } `json:"labels"`
			ServiceAccount string                        `json:"serviceAccount"`
			Ports          []rawPort                     `json:"ports"`
		} `json:"cni"`
	} `json:"args"`
	PrevResult       json.RawMessage `json:"prevResult"`
	ValidAttachments json.RawMessage `json:"cni.dev/valid-attachments"`
}

// rawIPAM says what addresses to ask for. Its keys are Calico's.
type rawIPAM struct {
	AssignIPv4 *flag    `json:"assign_ipv4"`
	AssignIPv6 *flag    `json:"assign_ipv6"`
	IPv4Pools  []string `json:"ipv4_pools"` // names or CIDRs
	IPv6Pools  []string `json:"ipv6_pools"`
}

// flag is a boolean, also written as text.
type flag bool

func (f *flag) UnmarshalJSON(text []byte) error {
	switch strings.Trim(string(text), `"`) {
	case "true":
		*f = true
	case "false":
		*f = false
	default:
		return fmt.Errorf("ipam: assign_ipv4 and assign_ipv6 must be true or false, not %s", text)
	}
	return nil
}

// Keys of a configuration.
var (
	ownKeys      = [...]string{"socket", "spool", "mtu", "ipam", "timeout", "connect_timeout"}
	standardKeys = [...]string{"cniVersion", "name", "type", "args", "capabilities", "disableCheck", "disableGC", "dns", "ipMasq", "prevResult", "runtimeConfig"}
	ipamKeys     = [...]string{"assign_ipv4", "assign_ipv6", "ipv4_pools", "ipv6_pools"}
)

// parseConfig returns the configuration that the runtime handed over, or an
// error of code 7 that names the key at fault.
func parseConfig(text []byte) (config, error) {
	c, err := parse(text)
	if err != nil {
		return config{}, types.NewError(types.ErrInvalidNetworkConfig, "network configuration: "+err.Error(), "")
	}
	return c, nil
}

func parse(text []byte) (config, error) {
	if err := checkKeys(text); err != nil {
		return config{}, err
	}
	var raw rawConfig
	if err := json.Unmarshal(text, &raw); err != nil {
		if mismatch, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return config{}, fmt.Errorf("%s: must be a %s, not a %s", mismatch.Field, word(mismatch.Type), mismatch.Value)
		}
		return config{}, err
	}
	c := config{cniVersion: raw.CNIVersion, network: raw.Name, dns: raw.DNS, mtu: raw.MTU}
	if c.mtu != 0 && (c.mtu < minMTU || c.mtu > maxMTU) {
		return config{}, fmt.Errorf("mtu: must be %d to %d, or 0 for the agent's choice, not %d", minMTU, maxMTU, c.mtu)
	}
	for _, l := range raw.Args.CNI.Labels {
		if c.labels == nil {
			c.labels = map[string]string{}
		}
		c.labels[l.Key] = l.Value
	}
	var errs [9]error
	c.socket, errs[0] = absolute("socket", raw.Socket, protocol.DefaultSocket)
	c.spool, errs[1] = absolute("spool", raw.Spool, protocol.DefaultSpool)
	c.timeout, errs[2] = duration("timeout", raw.Timeout, defaultTimeout)
	c.connectTimeout, errs[3] = duration("connect_timeout", raw.ConnectTimeout, defaultConnectTimeout)
	errs[4] = c.setIPAM(raw.IPAM)
	c.prev, errs[5] = previous(raw.CNIVersion, raw.PrevResult)
	errs[6] = c.setValid(raw.ValidAttachments)
	c.serviceAccount, errs[7] = account(raw.Args.CNI.ServiceAccount)
	c.ports, errs[8] = namedPorts(raw.Args.CNI.Ports)
	for _, err := range errs {
		if err != nil {
			return config{}, err
		}
	}
	return c, nil
}

// setValid reads which containers exist. Runtimes write null for none.
func (c *config) setValid(text json.RawMessage) error {
	if len(text) == 0 {
		return nil
	}
	var valid []types.GCAttachment
	if err := json.Unmarshal(text, &valid); err != nil {
		return fmt.Errorf("cni.dev/valid-attachments: %w", err)
	}
	c.hasValid = true
	for _, v := range valid {
		c.valid = append(c.valid, protocol.Sandbox{ContainerID: v.ContainerID, Interface: v.IfName})
	}
	return nil
}

// word says what a type is to somebody who writes JSON.
func word(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Slice:
		return "list"
	case reflect.Struct, reflect.Map:
		return "map"
	case reflect.Int:
		return "whole number"
	}
	return t.Kind().String()
}

// checkKeys refuses keys that nobody knows: a setting that has no effect is
// worse than none. Names with a slash are others' extensions.
func checkKeys(text []byte) error {
	var top map[string]json.RawMessage
	if err := json.Unmarshal(text, &top); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(top)) {
		if !slices.Contains(ownKeys[:], key) && !slices.Contains(standardKeys[:], key) && !strings.Contains(key, "/") {
			return fmt.Errorf("%s: unknown key; there are %s, and those of the CNI specification", key, strings.Join(ownKeys[:], ", "))
		}
	}
	var ipam map[string]json.RawMessage
	if err := json.Unmarshal(top["ipam"], &ipam); len(top["ipam"]) > 0 && err != nil {
		return errors.New("ipam: must be a map")
	}
	for _, key := range slices.Sorted(maps.Keys(ipam)) {
		if !slices.Contains(ipamKeys[:], key) {
			return fmt.Errorf("ipam.%s: unknown key; the agent assigns addresses, and there are %s", key, strings.Join(ipamKeys[:], ", "))
		}
	}
	return nil
}

// setIPAM reads what addresses to ask for. As in Calico, IPv4 is wanted unless
// it is refused; IPv6 is wanted too if it is asked for, or IPv4 refused.
func (c *config) setIPAM(raw rawIPAM) error {
	if raw.AssignIPv4 != nil || raw.AssignIPv6 != nil {
		c.ipv4 = raw.AssignIPv4 == nil || bool(*raw.AssignIPv4)
		c.ipv6 = !c.ipv4
		if raw.AssignIPv6 != nil {
			c.ipv6 = bool(*raw.AssignIPv6)
		}
		if !c.ipv4 && !c.ipv6 {
			return errors.New("ipam: assign_ipv4 and assign_ipv6 are both false, so a pod would have no address")
		}
	}
	for key, pools := range map[string][]string{"ipv4_pools": raw.IPv4Pools, "ipv6_pools": raw.IPv6Pools} {
		for i, p := range pools {
			cidr, err := netip.ParsePrefix(p)
			if p == "" || strings.Contains(p, "/") && err != nil {
				return fmt.Errorf("ipam.%s[%d]: must be a pool's name or CIDR, not %q", key, i, p)
			}
			if err == nil && cidr.Addr().Is4() != (key == "ipv4_pools") {
				return fmt.Errorf("ipam.%s[%d]: %s is of the other family", key, i, p)
			}
		}
	}
	c.pools = append(slices.Clone(raw.IPv4Pools), raw.IPv6Pools...)
	return nil
}

func absolute(key, path, otherwise string) (string, error) {
	if path == "" {
		return otherwise, nil
	}
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%s: must be an absolute path, not %q", key, path)
	}
	return path, nil
}

func duration(key, text string, otherwise time.Duration) (time.Duration, error) {
	if text == "" {
		return otherwise, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > maxTimeout {
		return 0, fmt.Errorf("%s: must be a time such as %q, more than 0 and at most %s, not %q", key, otherwise, maxTimeout, text)
	}
	return d, nil
}

// previous returns the result of the ADD that a CHECK or DEL is about.
func previous(cniVersion string, text json.RawMessage) (*types100.Result, error) {
	if len(text) == 0 || string(text) == "null" {
		return nil, nil
	}
	r, err := version.NewResult(cniVersion, text)
	if err != nil {
		return nil, fmt.Errorf("prevResult: %w", err)
	}
	prev, err := types100.NewResultFromResult(r)
	if err != nil {
		return nil, fmt.Errorf("prevResult: %w", err)
	}
	return prev, nil
}
