// Package router is a data-centre router for a lab: it speaks BGP with the nodes
// beside it, forwards to what they announce, and announces what it is told to.
//
// It guarantees the same with either speaker: Run is Cairn's own, BIRD renders a
// configuration for the program bird. It leaves interfaces and addresses to
// others.
package router

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"text/template"
)

// Config is what a router needs to know.
type Config struct {
	AS       uint32         `json:"as"`
	NodeAS   uint32         `json:"nodeAS"`             // of every node
	Listen   []netip.Addr   `json:"listen"`             // its own addresses, the router ID first if it is IPv4
	Sessions []Session      `json:"sessions"`           // each of the family of its addresses
	Announce []netip.Prefix `json:"announce,omitempty"` // to every node
}

// Session is a session with a node.
type Session struct {
	Node  string     `json:"node"`
	Addr  netip.Addr `json:"addr"`
	Local netip.Addr `json:"local"`
}

// JSON returns the configuration as Parse reads it.
func (c Config) JSON() ([]byte, error) { return json.MarshalIndent(c, "", "  ") }

// Parse reads what JSON wrote.
func Parse(b []byte) (Config, error) {
	var c Config
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("read router configuration: %w", err)
	}
	return c, nil
}

// routerID is the first own IPv4 address, or one for routers that have none.
func (c Config) routerID() netip.Addr {
	for _, a := range c.Listen {
		if a.Is4() {
			return a
		}
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, 255}) // RFC 5737, for documentation
}

// birdTemplate is for BIRD 2. Everything that nodes announce is taken, goes to
// the kernel, and is not passed on: nodes hear of each other's blocks directly.
var birdTemplate = template.Must(template.New("bird.conf").Parse(`log stderr all;
router id {{.ID}};

protocol device {}

protocol kernel kernel4 {
  merge paths on;
  ipv4 { export where source = RTS_BGP; };
}

protocol kernel kernel6 {
  merge paths on;
  ipv6 { export where source = RTS_BGP; };
}

protocol static static4 {
  ipv4;
{{- range .Announce4}}
  route {{.}} blackhole;
{{- end}}
}

protocol static static6 {
  ipv6;
{{- range .Announce6}}
  route {{.}} blackhole;
{{- end}}
}
{{range .Sessions}}
protocol bgp {{.Name}} {
  description "{{.Node}}";
  local {{.Local}} as {{$.AS}};
  neighbor {{.Addr}} as {{$.NodeAS}};
  connect retry time 5;
  error wait time 1, 10;
  graceful restart on;
  {{.Channel}} {
    import all;
    export where source = RTS_STATIC;
  };
}
{{end}}`))

// BIRD returns the configuration for the program bird, version 2.
func (c Config) BIRD() ([]byte, error) {
	type session struct {
		Session
		Name    string // a symbol of BIRD's language
		Channel string
	}
	data := struct {
		Config
		ID                   netip.Addr
		Announce4, Announce6 []netip.Prefix
		Sessions             []session
	}{Config: c, ID: c.routerID()}
	for _, p := range c.Announce {
		if p.Addr().Is4() {
			data.Announce4 = append(data.Announce4, p)
		} else {
			data.Announce6 = append(data.Announce6, p)
		}
	}
	for i, s := range c.Sessions {
		channel := "ipv4"
		if s.Addr.Is6() {
			channel = "ipv6"
		}
		data.Sessions = append(data.Sessions, session{s, fmt.Sprintf("node%d_%s", i, channel), channel})
	}
	var out bytes.Buffer
	if err := birdTemplate.Execute(&out, data); err != nil {
		return nil, fmt.Errorf("write bird.conf: %w", err)
	}
	return slices.Clip(out.Bytes()), nil
}
