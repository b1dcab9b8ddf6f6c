package topology

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"

	v1 "cairn.network/cairn/api/v1"
)

// Objects returns what the datastore is filled with, as a YAML stream: the BGP
// configuration, the pools, the nodes with the label that names their rack, a
// BGPPeer for each address of a router that nodes can reach directly, and the
// topology's own resources.
func (t *Topology) Objects() ([]byte, error) {
	var objects []any
	if !t.HasOwn("BGPConfiguration", v1.DefaultName) {
		objects = append(objects, object("BGPConfiguration", v1.DefaultName, nil, map[string]any{"asNumber": t.ASNumber}))
	}
	for _, p := range t.Pools {
		objects = append(objects, object("IPPool", p.Name, nil, p.IPPoolSpec))
	}
	for _, n := range t.Nodes {
		if !t.HasOwn("Node", n.Name) {
			objects = append(objects, object("Node", n.Name, map[string]string{RackLabel: n.Segment}, map[string]any{}))
		}
	}
	objects = append(objects, t.peers()...)
	for _, r := range t.Resources {
		objects = append(objects, r)
	}
	var out []byte
	for _, o := range objects {
		b, err := yaml.Marshal(o)
		if err != nil {
			return nil, fmt.Errorf("write objects: %w", err)
		}
		out = append(append(out, "---\n"...), b...)
	}
	return out, nil
}

// check has the resources pass the door that all resources pass.
func (t *Topology) check() error {
	text, err := t.Objects()
	if err != nil {
		return err
	}
	objects, err := v1.Decode(text)
	if err != nil {
		return err
	}
	var errs []error
	for _, o := range objects {
		errs = append(errs, v1.Check(o))
	}
	return errors.Join(errs...)
}

func (t *Topology) peers() []any {
	var peers []any
	for _, r := range t.Routers {
		for _, port := range r.Ports {
			if r.Speaker == SpeakerNone || port.Segment == Control {
				continue
			}
			for _, addr := range port.Addrs {
				name, version := fmt.Sprintf("%s-%s-ipv4", r.Name, port.Segment), "."
				if addr.Addr().Is6() {
					name, version = fmt.Sprintf("%s-%s-ipv6", r.Name, port.Segment), ":"
				}
				spec := map[string]any{
					"nodeSelector": fmt.Sprintf("%s == '%s'", RackLabel, port.Segment),
					"peerIP":       addr.Addr(),
					"asNumber":     r.ASNumber,
				}
				var accept []string
				for _, cidr := range r.AcceptCIDRs {
					if strings.Contains(cidr, version) {
						accept = append(accept, cidr)
					}
				}
				if len(accept) > 0 {
					spec["acceptCIDRs"] = accept
				}
				peers = append(peers, object("BGPPeer", name, nil, spec))
			}
		}
	}
	return peers
}

// HasOwn says whether the topology's own resources hold the object.
func (t *Topology) HasOwn(kind, name string) bool {
	_, ok := t.own(kind, name)
	return ok
}

func (t *Topology) own(kind, name string) (json.RawMessage, bool) {
	for _, r := range t.Resources {
		var o struct {
			Kind     string `json:"kind"`
			Metadata struct {
				Name string `json:"name"`
			} `json:"metadata"`
		}
		if json.Unmarshal(r, &o) == nil && o.Kind == kind && o.Metadata.Name == name {
			return r, true
		}
	}
	return nil, false
}

func object(kind, name string, labels map[string]string, spec any) map[string]any {
	meta := map[string]any{"name": name}
	if labels != nil {
		meta["labels"] = labels
	}
	return map[string]any{"apiVersion": v1.APIVersion, "kind": kind, "metadata": meta, "spec": spec}
}
