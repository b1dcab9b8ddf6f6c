package cli_test

import (
	"strings"
	"testing"

	"cairn.network/cairn/lab/cli"
)

// TestProbeMisuse holds that a probe which makes no sense is told from one that had no
// answer.
func TestProbeMisuse(t *testing.T) {
	for name, row := range map[string]struct{ args, want string }{
		"nothing":                     {"", "want a protocol, and an address"},
		"no address":                  {"tcp", "want a protocol, and an address"},
		"too much":                    {"tcp 10.0.0.1:1 10.0.0.1:2", "want a protocol, and an address"},
		"no port":                     {"tcp 10.0.0.1", "want an address and port"},
		"port 0":                      {"udp 10.0.0.1:0", "port 0 is none"},
		"port of icmp":                {"icmp 10.0.0.1:1", "want an address"},
		"unknown protocol":            {"gre 10.0.0.1:1", "there are tcp, udp, icmp and sctp"},
		"unknown flag":                {"tcp 10.0.0.1:1 --quick", "unknown flag"},
		"unknown expectation":         {"tcp 10.0.0.1:1 --expect some", "want pass or none"},
		"source port of icmp":         {"icmp 10.0.0.1 --source-port 1", "icmp has no ports"},
		"source port too large":       {"tcp 10.0.0.1:1 --source-port 65536", "value out of range"},
		"type of tcp":                 {"tcp 10.0.0.1:1 --icmp-type 8", "not of tcp"},
		"code of udp":                 {"udp 10.0.0.1:1 --icmp-code 1", "not of udp"},
		"type that nobody answers":    {"icmp 10.0.0.1 --icmp-type 3", "there are [8 13 15 17]"},
		"type of the other family":    {"icmp fd00::1 --icmp-type 8", "there are [128 139]"},
		"type too large":              {"icmp 10.0.0.1 --icmp-type 264", "nobody answers it"},
		"code too large":              {"icmp 10.0.0.1 --icmp-code 256", "must be 0 to 255"},
		"no tries":                    {"tcp 10.0.0.1:1 --count 0", "must be 1 or more"},
		"no time":                     {"tcp 10.0.0.1:1 --timeout 0s", "must be more than 0"},
		"stream of nothing":           {"stream", "want a protocol, and an address"},
		"stream with a source port":   {"stream tcp 10.0.0.1:1 --source-port 1", "can't share a port"},
		"stream too slow":             {"stream tcp 10.0.0.1:1 --rate 0", "must be 1 to 10000"},
		"stream too fast":             {"stream tcp 10.0.0.1:1 --rate 10001", "must be 1 to 10000"},
		"stream with an unknown flag": {"stream tcp 10.0.0.1:1 --count 1", "unknown flag"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs strings.Builder
			code := cli.Run(t.Context(), append([]string{"probe"}, strings.Fields(row.args)...), &out, &errs)
			if code != 2 || !strings.Contains(errs.String(), row.want) {
				t.Errorf("exit code %d, %q; want 2 and %q", code, errs.String(), row.want)
			}
		})
	}
}

// TestProbeExits holds what a probe prints and exits with. Nobody answers at these ports
// of the machine itself.
func TestProbeExits(t *testing.T) {
	for name, row := range map[string]struct {
		args, want string
		code       int
	}{
		"refused":           {"tcp 127.0.0.1:1", "refused", 1},
		"refused, IPv6":     {"tcp [::1]:1", "refused", 1},
		"refused, not none": {"tcp 127.0.0.1:1 --expect none", "refused", 1},
		"stream":            {"stream tcp 127.0.0.1:1 --expect none --for 50ms --rate 100", "0 answered", 1},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs strings.Builder
			code := cli.Run(t.Context(), append([]string{"probe"}, strings.Fields(row.args)...), &out, &errs)
			if code != row.code || !strings.Contains(out.String(), row.want) || errs.String() != "" {
				t.Errorf("exit code %d, %q, %q; want %d and %q", code, out.String(), errs.String(), row.code, row.want)
			}
		})
	}
}
