package topology

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	v1 "cairn.network/cairn/api/v1"
)

// file is a topology as it is written down.
type file struct {
	Name      string               `json:"name"`
	ASNumber  uint32               `json:"asNumber"`
	Racks     []rack               `json:"racks"`
	Routers   []router             `json:"routers"`
	Control   segment              `json:"control"`
	Pools     []Pool               `json:"pools"`
	Resources []stdjson.RawMessage `json:"resources"`
	Agent     Agent                `json:"agent"`
}

type segment struct {
	Subnets []string `json:"subnets"`
}

type rack struct {
	Name    string   `json:"name"`
	Subnets []string `json:"subnets"`
	Nodes   nodes    `json:"nodes"`
}

type router struct {
	Name        string   `json:"name"`
	Speaker     Speaker  `json:"speaker"`
	ASNumber    uint32   `json:"asNumber"`
	Announce    []string `json:"announce"`
	AcceptCIDRs []string `json:"acceptCIDRs"`
}

// nodes is a list of names, or a number: then the names are n1, n2 and so on,
// counted through all racks.
type nodes struct {
	names []string
	count int
}

// UnmarshalJSON takes either form.
func (n *nodes) UnmarshalJSON(b []byte) error {
	if stdjson.Unmarshal(b, &n.names) == nil {
		return nil
	}
	if stdjson.Unmarshal(b, &n.count) == nil {
		return nil
	}
	return errors.New("nodes: want a list of names, or how many")
}

// Limits of a lab. An interface's name has at most 15 characters (IFNAMSIZ-1).
const (
	maxName       = 15
	maxRackName   = maxName - len("eth-")
	maxRouters    = 9
	etcd4         = 10   // offset of the datastore's address in its subnet
	etcd6         = 0x10 // the same, so that it looks the same
	maxPerRack    = 200
	firstNode4    = 11   // of the first node's address in its rack's subnet
	firstNode6    = 0x11 // the same, so that it looks the same
	defaultPeerAS = 64513
)

// Parse reads a topology file (YAML or JSON). What is not a topology that can be
// built is refused, every reason at once, each with the field's path.
func Parse(b []byte) (*Topology, error) {
	var f file
	text, err := yaml.YAMLToJSONStrict(b)
	if err != nil {
		return nil, fmt.Errorf("read topology: %w", err)
	}
	// Unlike encoding/json this one takes a field's name only as it is spelt.
	unknown, err := json.UnmarshalStrict(text, &f)
	if err := errors.Join(append(unknown, err)...); err != nil {
		return nil, fmt.Errorf("read topology: %w", err)
	}
	f.complete()
	p := parser{seen: map[string]*field.Path{Etcd: nil, Fabric: nil, Control: nil}}
	t := p.topology(f)
	if err := p.errs.ToAggregate(); err != nil {
		return nil, fmt.Errorf("topology: %w", err)
	}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("topology: %w", err)
	}
	return t, nil
}

// complete fills in what was left out.
func (f *file) complete() {
	if f.Name == "" {
		f.Name = "cairn"
	}
	if f.ASNumber == 0 {
		f.ASNumber = v1.DefaultAS
	}
	var has4, has6 bool
	for _, r := range f.Racks {
		for _, s := range r.Subnets {
			has6 = has6 || strings.Contains(s, ":")
			has4 = has4 || !strings.Contains(s, ":")
		}
	}
	if len(f.Control.Subnets) == 0 {
		f.Control.Subnets = pick(has4, "10.101.0.0/24", has6, "fd00:101::/64")
	}
	if f.Pools == nil {
		for _, cidr := range pick(has4, "10.244.0.0/16", has6, "fd00:10:244::/48") {
			name := "default-ipv4"
			if strings.Contains(cidr, ":") {
				name = "default-ipv6"
			}
			f.Pools = append(f.Pools, Pool{Name: name, IPPoolSpec: v1.IPPoolSpec{CIDR: cidr}})
		}
	}
	if len(f.Routers) == 0 {
		f.Routers = []router{{Name: "tor"}}
	}
	for i := range f.Routers {
		r := &f.Routers[i]
		if r.Speaker == "" {
			r.Speaker = SpeakerCairn
		}
		if r.Speaker != SpeakerNone && r.ASNumber == 0 {
			r.ASNumber = defaultPeerAS
		}
	}
}

func pick(use4 bool, v4 string, use6 bool, v6 string) []string {
	var s []string
	if use4 {
		s = append(s, v4)
	}
	if use6 {
		s = append(s, v6)
	}
	return s
}
