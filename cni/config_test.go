package cni

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/cni/protocol"
)

func TestParseConfig(t *testing.T) {
	with := func(change func(*config)) config {
		c := config{
			cniVersion: "1.1.0", network: "net", socket: protocol.DefaultSocket, spool: protocol.DefaultSpool,
			timeout: 30 * time.Second, connectTimeout: 5 * time.Second,
		}
		if change != nil {
			change(&c)
		}
		return c
	}
	for name, row := range map[string]struct {
		text string // goes behind the keys that are always there
		want config
		err  string
	}{
		"defaults": {``, with(nil), ""},
		"everything": {
			`, "socket": "/a", "spool": "/b", "mtu": 1400, "timeout": "45s", "connect_timeout": "1ms", "ipam": {"assign_ipv4": "true", "assign_ipv6": true, "ipv4_pools": ["blue", "10.0.0.0/8"], "ipv6_pools": ["fd00::/48"]}`,
			with(func(c *config) {
				c.socket, c.spool, c.mtu, c.timeout, c.connectTimeout = "/a", "/b", 1400, 45*time.Second, time.Millisecond
				c.ipv4, c.ipv6, c.pools = true, true, []string{"blue", "10.0.0.0/8", "fd00::/48"}
			}), "",
		},
		"standard keys": {
			`, "type": "cairn-cni", "args": {"cni": {"ips": ["10.0.0.1"]}, "other": 1}, "capabilities": {"portMappings": true}, "runtimeConfig": {"x": 1}, "dns": {"domain": "a"}, "disableCheck": true, "disableGC": true, "ipMasq": false, "prevResult": null, "cni.dev/attachments": [], "example.org/x": 1`,
			with(func(c *config) { c.dns.Domain = "a" }), "",
		},
		"labels": {
			`, "args": {"cni": {"labels": [{"key": "app", "value": "web"}, {"key": "empty"}]}}`,
			with(func(c *config) { c.labels = map[string]string{"app": "web", "empty": ""} }), "",
		},
		"service account and ports": {
			`, "args": {"cni": {"serviceAccount": "web.a", "ports": [{"name": "http", "port": 1}, {"name": "dns-1", "protocol": "udp", "port": 65535}, {"name": "http", "protocol": "SCTP", "port": 1}]}}`,
			with(func(c *config) {
				c.serviceAccount = "web.a"
				c.ports = []protocol.Port{{Name: "http", Protocol: "TCP", Port: 1}, {Name: "dns-1", Protocol: "UDP", Port: 65535}, {Name: "http", Protocol: "SCTP", Port: 1}}
			}), "",
		},
		"no ports":            {`, "args": {"cni": {"serviceAccount": "", "ports": []}}`, with(nil), ""},
		"bad service account": {`, "args": {"cni": {"serviceAccount": "Web"}}`, config{}, `args.cni.serviceAccount: "Web" is no name of a service account`},
		"port 0":              {`, "args": {"cni": {"ports": [{"name": "a", "port": 0}]}}`, config{}, "args.cni.ports[0].port: must be 1 to 65535, not 0"},
		"port 65536":          {`, "args": {"cni": {"ports": [{"name": "a", "port": 65536}]}}`, config{}, "args.cni.ports[0].port: must be 1 to 65535, not 65536"},
		"port as text":        {`, "args": {"cni": {"ports": [{"name": "a", "port": "1"}]}}`, config{}, "args.cni.ports.port: must be a whole number, not a string"},
		"other protocol":      {`, "args": {"cni": {"ports": [{"name": "a", "port": 1}, {"name": "b", "protocol": "icmp", "port": 1}]}}`, config{}, `args.cni.ports[1].protocol: must be TCP, UDP or SCTP, not "icmp"`},
		"port without a name": {`, "args": {"cni": {"ports": [{"port": 1}]}}`, config{}, `args.cni.ports[0].name: must be 1 to 15 of a-z, 0-9 and -, with a letter, and begin and end without -; not ""`},

		"valid":      {`, "cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}]`, with(func(c *config) { c.hasValid, c.valid = true, []protocol.Sandbox{{ContainerID: "a", Interface: "eth0"}} }), ""},
		"none valid": {`, "cni.dev/valid-attachments": null`, with(func(c *config) { c.hasValid = true }), ""},

		"IPv4 alone":        {`, "ipam": {"assign_ipv4": true}`, with(func(c *config) { c.ipv4 = true }), ""},
		"IPv4 refused":      {`, "ipam": {"assign_ipv4": "false"}`, with(func(c *config) { c.ipv6 = true }), ""},
		"IPv6 asked for":    {`, "ipam": {"assign_ipv6": "true"}`, with(func(c *config) { c.ipv4, c.ipv6 = true, true }), ""},
		"IPv6 refused":      {`, "ipam": {"assign_ipv6": false}`, with(func(c *config) { c.ipv4 = true }), ""},
		"IPv6 alone":        {`, "ipam": {"assign_ipv4": false, "assign_ipv6": true}`, with(func(c *config) { c.ipv6 = true }), ""},
		"no address":        {`, "ipam": {"assign_ipv4": false, "assign_ipv6": false}`, config{}, "ipam: assign_ipv4 and assign_ipv6 are both false, so a pod would have no address"},
		"empty ipam":        {`, "ipam": {}`, with(nil), ""},
		"smallest MTU":      {`, "mtu": 1280`, with(func(c *config) { c.mtu = 1280 }), ""},
		"MTU too small":     {`, "mtu": 1279`, config{}, "mtu: must be 1280 to 65535, or 0 for the agent's choice, not 1279"},
		"largest MTU":       {`, "mtu": 65535`, with(func(c *config) { c.mtu = 65535 }), ""},
		"MTU too large":     {`, "mtu": 65536`, config{}, "mtu: must be 1280 to 65535, or 0 for the agent's choice, not 65536"},
		"negative MTU":      {`, "mtu": -1`, config{}, "mtu: must be 1280 to 65535, or 0 for the agent's choice, not -1"},
		"MTU as text":       {`, "mtu": "1400"`, config{}, "mtu: must be a whole number, not a string"},
		"unknown key":       {`, "mut": 1400`, config{}, "mut: unknown key; there are socket, spool, mtu, ipam, timeout, connect_timeout, and those of the CNI specification"},
		"IPAM plug-in":      {`, "ipam": {"type": "host-local"}`, config{}, "ipam.type: unknown key; the agent assigns addresses, and there are assign_ipv4, assign_ipv6, ipv4_pools, ipv6_pools"},
		"ipam no map":       {`, "ipam": "x"`, config{}, "ipam: must be a map"},
		"bad flag":          {`, "ipam": {"assign_ipv4": "yes"}`, config{}, `ipam: assign_ipv4 and assign_ipv6 must be true or false, not "yes"`},
		"relative socket":   {`, "socket": "cni.sock"`, config{}, `socket: must be an absolute path, not "cni.sock"`},
		"relative spool":    {`, "spool": "spool"`, config{}, `spool: must be an absolute path, not "spool"`},
		"time without unit": {`, "timeout": "30"`, config{}, `timeout: must be a time such as "30s", more than 0 and at most 45s, not "30"`},
		"time as a number":  {`, "timeout": 30`, config{}, `timeout: must be a string, not a number`},
		"no time":           {`, "connect_timeout": "0s"`, config{}, `connect_timeout: must be a time such as "5s", more than 0 and at most 45s, not "0s"`},
		"too much time":     {`, "timeout": "45.001s"`, config{}, `timeout: must be a time such as "30s", more than 0 and at most 45s, not "45.001s"`},
		"empty pool":        {`, "ipam": {"ipv4_pools": [""]}`, config{}, `ipam.ipv4_pools[0]: must be a pool's name or CIDR, not ""`},
		"bad CIDR":          {`, "ipam": {"ipv4_pools": ["blue", "10.0.0.0/33"]}`, config{}, `ipam.ipv4_pools[1]: must be a pool's name or CIDR, not "10.0.0.0/33"`},
		"IPv6 among IPv4":   {`, "ipam": {"ipv4_pools": ["fd00::/48"]}`, config{}, "ipam.ipv4_pools[0]: fd00::/48 is of the other family"},
		"IPv4 among IPv6":   {`, "ipam": {"ipv6_pools": ["10.0.0.0/8"]}`, config{}, "ipam.ipv6_pools[0]: 10.0.0.0/8 is of the other family"},
		"pools no list":     {`, "ipam": {"ipv4_pools": "blue"}`, config{}, "ipam.ipv4_pools: must be a list, not a string"},
		"bad prevResult":    {`, "prevResult": {"ips": "x"}`, config{}, "prevResult: json: cannot unmarshal string into Go struct field Result.ips of type []*types100.IPConfig"},
		"bad valid":         {`, "cni.dev/valid-attachments": 1`, config{}, "cni.dev/valid-attachments: json: cannot unmarshal number into Go value of type []types.GCAttachment"},
		"no JSON":           {`,`, config{}, "invalid character '}' looking for beginning of object key string"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseConfig([]byte(`{"cniVersion": "1.1.0", "name": "net"` + row.text + `}`))
			if row.err != "" {
				var e *types.Error
				if !errors.As(err, &e) || e.Code != types.ErrInvalidNetworkConfig {
					t.Fatalf("error = %#v, want one of code 7", err)
				}
				if diff := cmp.Diff("network configuration: "+row.err, e.Msg); diff != "" {
					t.Error(diff)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, got, cmp.AllowUnexported(config{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestIsPortName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "http": true, "p8080": true, "8080p": true, "a-b-c": true, "abcdefghijklmno": true,
		"": false, "8080": false, "-": false, "-a": false, "a-": false, "a--b": false, "HTTP": false, "a.b": false, "a b": false, "abcdefghijklmnop": false,
	} {
		if got := isPortName(name); got != want {
			t.Errorf("isPortName(%q) = %v", name, got)
		}
	}
}

func TestParsePod(t *testing.T) {
	k8s := pod{containerID: "c1", ifName: "eth0", netns: "/n", namespace: "default", name: "web-0.a"}
	bare := pod{containerID: "c1", ifName: "eth0", netns: "/n", name: "c1"}
	for name, row := range map[string]struct {
		args string
		want pod
		err  string
	}{
		"none":             {"", bare, ""},
		"Kubernetes":       {"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0.a;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u", k8s, ""},
		"unknown, ignored": {"K8S_POD_NAMESPACE=default;X=y=z;K8S_POD_NAME=web-0.a;IgnoreUnknown=true", k8s, ""},
		"unknown":          {"X=1;Y=2", pod{}, "CNI_ARGS: unknown keys X, Y, and IgnoreUnknown is not set"},
		"unknown, refused": {"X=1;IgnoreUnknown=0", pod{}, "CNI_ARGS: unknown keys X, and IgnoreUnknown is not set"},
		"empty values":     {"K8S_POD_NAMESPACE=;K8S_POD_NAME=", bare, ""},
		"no pair":          {"K8S_POD_NAME", pod{}, `CNI_ARGS: "K8S_POD_NAME" is not of the form key=value`},
		"bad name":         {"K8S_POD_NAME=a b", pod{}, `CNI_ARGS: K8S_POD_NAME: "a b" is no name of a pod`},
		"bad namespace":    {"K8S_POD_NAMESPACE=../x", pod{}, `CNI_ARGS: K8S_POD_NAMESPACE: "../x" is no name of a namespace`},
		"longest name":     {"K8S_POD_NAME=" + strings.Repeat("a", 253), pod{containerID: "c1", ifName: "eth0", netns: "/n", name: strings.Repeat("a", 253)}, ""},
		"name is too long": {"K8S_POD_NAME=" + strings.Repeat("a", 254), pod{}, `CNI_ARGS: K8S_POD_NAME: "` + strings.Repeat("a", 254) + `" is no name of a pod`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parsePod(&skel.CmdArgs{ContainerID: "c1", IfName: "eth0", Netns: "/n", Args: row.args})
			if row.err != "" {
				var e *types.Error
				if !errors.As(err, &e) || e.Code != types.ErrInvalidEnvironmentVariables || e.Msg != row.err {
					t.Fatalf("error = %#v, want %s", err, row.err)
				}
				return
			}
			if err != nil || got != row.want {
				t.Errorf("got %+v, %v; want %+v", got, err, row.want)
			}
		})
	}
}

// TestAttachmentOf reads results of other shapes than our own.
func TestAttachmentOf(t *testing.T) {
	p := pod{containerID: "c1", ifName: "eth0", netns: "/n"}
	ip := func(at int, text string) *types100.IPConfig {
		addr, ipnet, err := net.ParseCIDR(text)
		if err != nil {
			t.Fatal(err)
		}
		return &types100.IPConfig{Interface: new(at), Address: net.IPNet{IP: addr, Mask: ipnet.Mask}}
	}
	r := &types100.Result{
		Interfaces: []*types100.Interface{{Name: "lo", Sandbox: "/n"}, {Name: "ifb0"}, {Name: "eth0", Sandbox: "/n", Mtu: 1400}, {Name: "cairn1", Mac: "ee:ee:ee:ee:ee:ee"}},
		IPs:        []*types100.IPConfig{ip(0, "127.0.0.1/8"), {Address: net.IPNet{IP: net.IPv4(1, 2, 3, 4)}}, ip(2, "10.0.0.1/32"), ip(2, "fd00::1/128")},
	}
	a := attachmentOf(r, p)
	if a.HostLink != "cairn1" || a.MTU != 1400 || addresses(a) != "10.0.0.1 and fd00::1" {
		t.Errorf("got %+v", a)
	}
	if a := attachmentOf(&types100.Result{}, p); a.HostLink != "" || addresses(a) != "no address" {
		t.Errorf("an empty result has %+v", a)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"cniVersion": "1.1.0", "name": "net", "mtu": 1400, "ipam": {"assign_ipv4": "true", "ipv6_pools": ["fd00::/48"]}}`))
	f.Add([]byte(`{"cniVersion": "0.3.1", "prevResult": {"ips": [{"version": "4", "interface": 7, "address": "10.0.0.1/32"}], "interfaces": [null]}}`))
	f.Add([]byte(`{"cni.dev/valid-attachments": [null], "args": {"cni": {"labels": [null]}}}`))
	f.Add([]byte(`{"args": {"cni": {"serviceAccount": "web", "ports": [null, {"name": "http", "protocol": "udp", "port": 80}]}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseConfig(text)
		if err != nil {
			var e *types.Error
			if !errors.As(err, &e) || e.Code != types.ErrInvalidNetworkConfig {
				t.Fatalf("error = %#v", err)
			}
			return
		}
		if c.prev != nil {
			attachmentOf(c.prev, pod{ifName: "eth0"})
		}
	})
}
