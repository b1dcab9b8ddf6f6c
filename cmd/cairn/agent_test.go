package main

import (
	"io"
	"strings"
	"testing"

	"cairn.network/cairn/config"
)

// TestAgentFlags holds that each bad setting is refused with its name before
// anything else happens.
func TestAgentFlags(t *testing.T) {
	for _, test := range []struct{ name, args, want string }{
		{"address without length", "--ipv4-address 192.0.2.1", "--ipv4-address: \"192.0.2.1\" is not an address with a prefix length"},
		{"address of the other family", "--ipv6-address 192.0.2.1/24", "--ipv6-address: 192.0.2.1/24 is of the other family"},
		{"loopback", "--ipv4-address 127.0.0.1/8", "no unicast address that others can reach"},
		{"link-local", "--ipv6-address fe80::1/64", "no unicast address that others can reach"},
		{"no name", "--node-name=", "--node-name: must be given"},
		{"no reserve", "--ipam-reserve 0", "--ipam-reserve: 0 is not in 1…1024"},
		{"reserve's border + 1", "--ipam-reserve 1025", "--ipam-reserve: 1025 is not in 1…1024"},
		{"no cool-down", "--ipam-cool-down 0", "--ipam-cool-down: 0s is less than 1s"},
		{"resync too often", "--resync 999ms", "--resync: 999ms is less than 1s"},
		{"small MTU", "--mtu 1279", "--mtu: 1279 is neither 0 nor in 1280…65535"},
		{"log level", "--log-level loud", "--log-level: \"loud\" is none of debug, info, warn, error"},
		{"log format", "--log-format xml", "--log-format: \"xml\" is neither text nor json"},
		{"datastore", "--datastore-type kubernetes", "datastore-type"},
		{"endpoint", "--etcd-endpoints ftp://192.0.2.1", "etcd-endpoints"},
		{"unknown flag", "--shout", "unknown flag: --shout"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := root()
			cmd.SetArgs(append([]string{"agent", "--node-name", "n1"}, strings.Fields(test.args)...))
			cmd.SetOut(io.Discard)
			cmd.SetErr(io.Discard)
			err := cmd.ExecuteContext(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want one with %q", err, test.want)
			}
			if _, ok := err.(*config.UsageError); !ok {
				t.Errorf("a %T, want a mistake of the caller's", err)
			}
		})
	}
}
