//go:build linux

package linux

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/kernel"
	"cairn.network/cairn/kernel/kerneltest"
)

// listing returns what nft(8) lists of our table, blocks in order of their names,
// with one blank between any two words.
func listing(text string) string {
	blocks := strings.Split(strings.Join(strings.Fields(text), " "), "} ")
	for i, b := range blocks {
		blocks[i] = regexp.MustCompile(`^table inet cairn \{ `).ReplaceAllString(b, "")
	}
	slices.Sort(blocks)
	return strings.Join(blocks, "}\n")
}

func (w *rulesWorld) text(t *testing.T) string {
	t.Helper()
	sets, err := w.sets.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	elements, err := w.elements.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	chains, err := w.chains.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return kernel.RulesText(maps.All(sets), maps.All(elements), maps.All(chains))
}

// TestRulesAreListedAsTheyRead compares our text of what the kernel has with that
// of nft(8), and has nft(8) make the same of our text.
func TestRulesAreListedAsTheyRead(t *testing.T) {
	w, other := newRulesWorld(t), newRulesWorld(t)
	kerneltest.EveryRule(t, w)
	elements := []kernel.Element{
		kerneltest.Member("nodes4", "192.0.2.1"), kerneltest.Member("nodes6", "2001:db8::1"),
		kerneltest.Member("pools4", "10.0.0.0/16"), kerneltest.Member("pools4", "10.1.0.1"), kerneltest.Member("pools6", "fd00::/64"),
		{Set: "ports", Port: 80}, {Set: "port-ranges", Port: 80}, {Set: "port-ranges", Port: 90, LastPort: 65535},
	}
	for set, addr := range map[string]string{"services4": "192.0.2.1", "services6": "2001:db8::1"} {
		e := kerneltest.Member(set, addr)
		e.Protocol, e.Port = kernel.ProtoSCTP, 443
		elements = append(elements, e)
	}
	for set, addr := range map[string]string{"sources4": "192.0.2.1", "sources6": "2001:db8::1"} {
		e := kerneltest.Member(set, addr)
		e.Beside = "fifteen-letters"
		elements = append(elements, e)
	}
	kerneltest.Put(t, w.elements, elementMap(elements))
	// The order of entries is the kernel's.
	kerneltest.Put(t, w.chains, nil, kernel.EntryKey("to/pod", "cairn0"))
	text := w.text(t)
	listed := listing(w.nft(t, "list table inet cairn"))
	if diff := cmp.Diff(listed, listing(text)); diff != "" {
		t.Errorf("-nft +RulesText:\n%s", diff)
	}
	other.nft(t, text)
	if diff := cmp.Diff(text, other.text(t)); diff != "" {
		t.Errorf("-written +read back after nft had made it:\n%s", diff)
	}
	if diff := cmp.Diff(listed, listing(other.nft(t, "list table inet cairn"))); diff != "" {
		t.Errorf("-made by us +made by nft:\n%s", diff)
	}
}

// TestJoinedMatchesAreListedAlike has rules whose neighbours nft(8) joins in one
// comparison: they are listed as ours, and read as something else.
func TestJoinedMatchesAreListedAlike(t *testing.T) {
	w, other := newRulesWorld(t), newRulesWorld(t)
	services := kernel.AddrMatch{Place: kernel.Destination, Set: "services", Keys: kernel.KeysServices}
	kerneltest.Put(t, w.sets, map[string]kernel.Set{"services": {Keys: kernel.KeysServices}})
	chains := make(map[string]kernel.Chain)
	for name, r := range map[string]kernel.Rule{
		"ports":    {Protocol: kernel.ProtoSCTP, Ports: []kernel.PortMatch{{Place: kernel.Source, First: 80, Last: 80}, {Place: kernel.Destination, First: 81, Last: 81}}},
		"services": {Protocol: kernel.ProtoTCP, Addrs: []kernel.AddrMatch{services}},
	} {
		r.Verdict = kernel.Accept
		chains[name] = kernel.Chain{Rules: kernel.RulesOf(r)}
	}
	kerneltest.Put(t, w.chains, chains)
	kerneltest.WantRules(t, w, map[string]kernel.Set{"services": {Keys: kernel.KeysServices}}, nil, chains)
	text := w.text(t)
	other.nft(t, text)
	listed := listing(w.nft(t, "list table inet cairn"))
	if diff := cmp.Diff(listed, listing(text)); diff != "" {
		t.Errorf("-nft +RulesText:\n%s", diff)
	}
	if diff := cmp.Diff(listed, listing(other.nft(t, "list table inet cairn"))); diff != "" {
		t.Errorf("-made by us +made by nft:\n%s", diff)
	}
	have, err := other.chains.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range chains {
		if have[name] == c {
			t.Errorf("chain %s of nft reads as ours: there is no need to say that it does not", name)
		}
	}
	kerneltest.Put(t, other.chains, chains)
	kerneltest.WantRules(t, other, map[string]kernel.Set{"services": {Keys: kernel.KeysServices}}, nil, chains)
}

// TestOthersRulesAreNotTakenForOurs reads what another hand made in our table: it
// equals nothing that is wanted, and is replaced or deleted.
func TestOthersRulesAreNotTakenForOurs(t *testing.T) {
	w := newRulesWorld(t)
	sets := map[string]kernel.Set{"nodes4": {}, "pools4": {Ranges: true}}
	wanted := kernel.Chain{Hook: kernel.HookInput, Type: kernel.ChainFilter, Rules: kernel.RulesOf(
		kernel.Rule{Src: kernel.InSet{Set: "nodes4"}, Protocol: kernel.ProtoUDP, DstPort: 4789, Verdict: kernel.Drop})}
	chains := map[string]kernel.Chain{"it": wanted}
	for _, tt := range []struct{ name, script, other string }{
		{"counter", "insert rule inet cairn it counter accept", "counter accept"},
		{"counter before a match", "insert rule inet cairn it counter udp dport 4789 accept", "counter, meta"},
		{"continue", "add rule inet cairn it counter continue", "counter, immediate"},
		{"other order", "flush chain inet cairn it\nadd rule inet cairn it ip saddr @nodes4 udp dport 4789 drop", "payload"},
		{"not equal", "add rule inet cairn it udp dport != 4789 drop", "udp dport != 4789 drop"},
		{"range", "add rule inet cairn it udp dport 1-4789 drop", "udp dport 1-4789 drop"},
		{"half a range", "add rule inet cairn it udp dport > 4789 drop", "cmp"},
		{"source port", "add rule inet cairn it udp sport 4789 drop", "udp sport 4789 drop"},
		{"address", "add rule inet cairn it ip saddr 192.0.2.1 drop", "ip saddr 192.0.2.1 drop"},
		{"part of an address", "add rule inet cairn it ip saddr & 255.0.255.0 == 10.0.0.0 drop", "bitwise"},
		{"unmasked address", "add rule inet cairn it @nh,96,8 10 drop", "payload"},
		{"anonymous set", "add rule inet cairn it ip saddr { 192.0.2.1, 192.0.2.2 } drop", "@__set"},
		{"verdict map", "add rule inet cairn it udp dport vmap { 1 : drop, 2 : accept }", "lookup"},
		{"return", "add rule inet cairn it return", "return"},
		{"jump", "add chain inet cairn more\nadd rule inet cairn it jump more", "jump more"},
		{"no verdict", "add rule inet cairn it udp dport 4789", "payload"},
		{"log to the kernel's own", "add rule inet cairn it log drop", "log"},
		{"log to a group", "add rule inet cairn it log group 1 drop", "log group 1 drop"},
		{"log a part", "add rule inet cairn it log group 1 snaplen 100 drop", "log"},
		{"limit of a minute", "add rule inet cairn it limit rate 1/minute drop", "limit"},
		{"limit of bytes", "add rule inet cairn it limit rate 1 kbytes/second drop", "limit"},
		{"limit turned round", "add rule inet cairn it limit rate over 1/second drop", "limit"},
		{"mark", "add rule inet cairn it meta mark set 1", "meta"},
		{"other link match", `add rule inet cairn it iif lo drop`, "meta"},
		{"connections", "add rule inet cairn it ct state established accept", "ct state established accept"},
		{"other connections", "add rule inet cairn it ct state != established accept", "ct"},
		{"mark of connections", "add rule inet cairn it ct mark 1 accept", "ct"},
		{"ICMP", "add rule inet cairn it icmp id 1 drop", "payload"},
		{"other policy", "chain inet cairn it { policy drop; }", "policy drop"},
		{"dormant", "table inet cairn { flags dormant; }", "dormant"},
		{"other base chain", `add chain inet cairn lo { type filter hook ingress device "lo" priority 0; }`, "hook 5"},
		{"route chain", "add chain inet cairn r { type route hook output priority 0; }", "type route"},
		{"plain masquerade", "add chain inet cairn n { type nat hook postrouting priority 100; }\nadd rule inet cairn n masquerade", "masq"},
	} {
		t.Run(tt.name, func(t *testing.T) {

			kerneltest.Put(t, w.sets, sets)
			kerneltest.Put(t, w.chains, chains)
			kerneltest.WantRules(t, w, sets, nil, chains)
			w.nft(t, tt.script)
			have, err := w.chains.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if maps.Equal(have, chains) {
				t.Errorf("chains read back as if nobody had changed them")
			}
			if text := w.text(t); !strings.Contains(text, tt.other) {
				t.Errorf("%s: the reading does not tell of %q:\n%s", tt.name, tt.other, text)
			}
			kerneltest.Put(t, w.chains, chains)
			var del []string
			for name := range have {
				if name != "it" {
					del = append(del, name)
				}
			}
			kerneltest.Put(t, w.chains, nil, del...)
			kerneltest.WantRules(t, w, sets, nil, chains)
		})
	}
}

// TestOthersSetsAreDeleted reads and deletes what is in our table and no set of
// addresses, and leaves no table behind.
func TestOthersSetsAreDeleted(t *testing.T) {
	w := newRulesWorld(t)
	w.nft(t, `table inet cairn {
		map a { type ipv4_addr : verdict; elements = { 192.0.2.1 : drop } }
		set b { type mark; elements = { 80 } }
		map i { type ifname : mark; elements = { "cairn0" : 1 } }
		map j { type ifname : verdict; flags interval; elements = { "cairn*" : drop } }
		set k { type ifname; elements = { "cairn0" } }
		set l { type ipv4_addr . inet_proto . inet_service; flags interval; elements = { 192.0.2.0/24 . 6 . 80-90 } }
		map m { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 192.0.2.1 . 6 . 80 : drop } }
		set c { type ipv4_addr . inet_service; elements = { 192.0.2.1 . 80 } }
		set d { type ipv4_addr; flags timeout; elements = { 192.0.2.1 timeout 1h } }
		set e { type ipv4_addr; size 100; elements = { 192.0.2.1 } }
		set f { type ipv4_addr; flags interval; auto-merge; elements = { 192.0.2.1-192.0.2.3 } }
		set g { type ether_addr; }
		set h { type ipv4_addr; counter; elements = { 192.0.2.1 } }
		counter x { }
	}`)
	have, err := w.sets.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	names := slices.Sorted(maps.Keys(have))
	if len(names) != 13 {
		t.Errorf("sets read: %v, want all thirteen", names)
	}
	for _, name := range names {
		if usual := name == "f" || name == "h"; (have[name].Other == "") != usual {
			t.Errorf("set %s reads as %+v", name, have[name])
		}
	}
	elements, err := w.elements.Read(t.Context())
	if err != nil || len(elements) != 2 { // of f and h
		t.Errorf("elements read: %v, %v", elements, err)
	}
	kerneltest.Put(t, w.sets, map[string]kernel.Set{"a": {}, "b": {Ranges: true}, "i": {Keys: kernel.KeysLinks}, "k": {Keys: kernel.KeysLinks}}, "c", "d")
	kerneltest.Put(t, w.sets, nil, "a", "b", "e", "f", "g", "h", "i", "j", "k", "l", "m")
	if left := w.nft(t, "list ruleset"); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

// TestTableGoesWithTheLast deletes in each order and looks for what is left.
func TestTableGoesWithTheLast(t *testing.T) {
	w := newRulesWorld(t)
	set, chain := map[string]kernel.Set{"nodes4": {}}, map[string]kernel.Chain{"it": {Hook: kernel.HookInput, Type: kernel.ChainFilter}}
	delSet, delChain := func() { kerneltest.Put(t, w.sets, nil, "nodes4") }, func() { kerneltest.Put(t, w.chains, nil, "it") }
	for _, order := range [][]func(){{delSet, delChain}, {delChain, delSet}} {
		kerneltest.Put(t, w.sets, set)
		kerneltest.Put(t, w.chains, chain)
		order[0]()
		if left := w.nft(t, "list ruleset"); left == "" {
			t.Error("the table went too early")
		}
		order[1]()
		if left := w.nft(t, "list ruleset"); left != "" {
			t.Errorf("left behind:\n%s", left)
		}
	}
}
