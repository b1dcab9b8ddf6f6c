package kerneltest

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn.network/cairn/kernel"
)

// RulesWorld is a host of its own whose nftables are empty, with what another hand
// may do to Cairn's table.
type RulesWorld interface {
	kernel.Watcher
	Sets() kernel.Table[string, kernel.Set]
	Elements() kernel.Table[kernel.Element, struct{}]
	Chains() kernel.Table[string, kernel.Chain]

	AddSet(t testing.TB, name string, s kernel.Set)
	AddElement(t testing.TB, e kernel.Element)
	AddChain(t testing.TB, name string, c kernel.Chain)
	DropElement(t testing.TB, e kernel.Element)
	DropChain(t testing.TB, name string)
	FlushRuleset(t testing.TB)
}

// RunRules runs the suite of the tables of nftables, each test on a world of its
// own.
func RunRules(t *testing.T, newWorld func(t *testing.T) RulesWorld) {
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, w RulesWorld)
	}{
		{"none", noRules},
		{"sets and elements read back equal", setsReadBack},
		{"every form of rule reads back equal", EveryRule},
		{"a chain moves and changes at once", chainMoves},
		{"a bad set does not stop its neighbours", badSets},
		{"a bad element does not stop its neighbours", badElements},
		{"a bad chain does not stop its neighbours", badChains},
		{"a set in use stays", setInUse},
		{"what rules and entries refer to must be there", missing},
		{"what depends on what is refused is refused", dependents},
		{"what is referred to stays", chainInUse},
		{"chains in a circle are refused", circles},
		{"chains and entries go in any order", anyOrder},
		{"entries lead elsewhere", entriesMove},
		{"many chains", manyChains},
		{"a set of another kind is made anew", setOfAnotherKind},
		{"what another hand made is read and deleted", byAnotherHand},
		{"many elements", manyElements},
		{"shared sets", sharedSets}, {"bad shared sets", badSharedSets}, {"many shared sets", manySharedSets},
		{"what another hand does is told", rulesWatched},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, newWorld(t)) })
	}
}

// WantRules fails the test unless the tables read these.
func WantRules(t testing.TB, w RulesWorld, sets map[string]kernel.Set, elements []kernel.Element, chains map[string]kernel.Chain) {
	t.Helper()
	wantTable(t, "sets", w.Sets(), sets)
	members := make(map[kernel.Element]struct{})
	for _, e := range elements {
		members[e] = struct{}{}
	}
	wantTable(t, "elements", w.Elements(), members)
	wantTable(t, "chains", w.Chains(), chains)
}

func wantTable[K, V comparable](t testing.TB, what string, table kernel.Table[K, V], want map[K]V) {
	t.Helper()
	have, err := table.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if maps.Equal(have, want) {
		return
	}
	lines := func(m map[K]V) (out []string) {
		for k, v := range m {
			out = append(out, fmt.Sprintf("%v: %+v", k, v))
		}
		slices.Sort(out)
		return out
	}
	t.Fatalf("%s read back (-want +got):\n%s", what, cmp.Diff(lines(want), lines(have)))
}

// Put writes to a table what must be written without an error.
func Put[K, V comparable](t testing.TB, table kernel.Table[K, V], set map[K]V, del ...K) {
	t.Helper()
	if err := table.Write(t.Context(), set, del); err != nil {
		t.Fatal(err)
	}
}

// wantFailures checks that err is of these keys, each with its error and no other.
func wantFailures[K comparable](t testing.TB, err error, op string, want map[K]error) {
	t.Helper()
	got := make(map[K]error)
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			k, ok := errors.AsType[*kernel.KeyError[K]](e)
			if !ok || k.Op != op {
				t.Errorf("failed with %v, want errors of %s", e, op)
				continue
			}
			got[k.Key] = k.Err
		}
	} else if err != nil {
		t.Fatalf("failed with %v, want joined errors of keys", err)
	}
	for k, e := range want {
		if !errors.Is(got[k], e) {
			t.Errorf("%s %v: %v, want %v", op, k, got[k], e)
		}
	}
	for k, e := range got {
		if _, wanted := want[k]; !wanted {
			t.Errorf("%s %v: %v, want no error", op, k, e)
		}
	}
}

// Member returns an element: of an address or a prefix.
func Member(set, member string) kernel.Element {
	p, err := netip.ParsePrefix(member)
	if err != nil {
		a := netip.MustParseAddr(member)
		p = netip.PrefixFrom(a, a.BitLen())
	}
	return kernel.Element{Set: set, Prefix: p}
}

func members(elements ...kernel.Element) map[kernel.Element]struct{} {
	m := make(map[kernel.Element]struct{})
	for _, e := range elements {
		m[e] = struct{}{}
	}
	return m
}

// kinds are sets of each kind.
func kinds() map[string]kernel.Set {
	return map[string]kernel.Set{
		"nodes4": {}, "nodes6": {IPv6: true}, "pools4": {Ranges: true}, "pools6": {IPv6: true, Ranges: true},
		"ports": {Keys: kernel.KeysPorts}, "port-ranges": {Keys: kernel.KeysPorts, Ranges: true},
		"services4": {Keys: kernel.KeysServices}, "services6": {Keys: kernel.KeysServices, IPv6: true},
		"sources4": {Keys: kernel.KeysSources}, "sources6": {Keys: kernel.KeysSources, IPv6: true},
		"from/pod": {Keys: kernel.KeysLinks}, "to/pod": {Keys: kernel.KeysLinks},
	}
}

// memberOf returns an element that a set of any kind but verdict maps can have.
func memberOf(name string, s kernel.Set) kernel.Element {
	e := Member(name, "10.0.0.1")
	if s.IPv6 {
		e = Member(name, "fd00::1")
	}
	switch s.Keys {
	case kernel.KeysPorts:
		e = kernel.Element{Set: name, Port: 80}
	case kernel.KeysServices:
		e.Protocol, e.Port = kernel.ProtoTCP, 80
	case kernel.KeysSources:
		e.Beside = "cairn0"
	}
	return e
}

func noRules(t *testing.T, w RulesWorld) {
	WantRules(t, w, nil, nil, nil)
	for range 2 {
		Put(t, w.Sets(), nil, "gone")
		Put(t, w.Elements(), nil, Member("gone", "10.0.0.1"))
		Put(t, w.Chains(), nil, "gone")
		Put(t, w.Sets(), nil)
		Put(t, w.Elements(), nil)
		Put(t, w.Chains(), nil)
	}
	WantRules(t, w, nil, nil, nil)
}

func setsReadBack(t *testing.T, w RulesWorld) {
	var elements []kernel.Element
	for set, list := range map[string][]string{
		"nodes4": {"192.0.2.1", "192.0.2.2", "0.0.0.0", "255.255.255.255"},
		"nodes6": {"2001:db8::1", "2001:db8::2", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		// Single ones, neighbours, with a gap, and at both ends.
		"pools4": {"0.0.0.0/8", "10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/15", "10.9.0.0/26", "10.9.0.64/32", "10.9.0.66/32", "224.0.0.0/3"},
		"pools6": {"::/16", "fd00::/64", "fd00:0:0:1::/64", "fd00:9::/122", "fd00:9::40/128", "fd00:9::42/128", "ff00::/8"},
		"all4":   {"0.0.0.0/0"},
		"all6":   {"::/0"},
	} {
		for _, member := range list {
			elements = append(elements, Member(set, member))
		}
	}
	elements = append(elements, keyedElements()...)
	sets := kinds()
	sets["all4"], sets["all6"] = kernel.Set{Ranges: true}, kernel.Set{IPv6: true, Ranges: true}
	sets["with/odd_name-1.2"], sets["_.all-ports"] = kernel.Set{}, kernel.Set{Keys: kernel.KeysPorts, Ranges: true}
	elements = append(elements, kernel.Element{Set: "_.all-ports", LastPort: 65535})
	for range 2 { // the second time all is there already
		Put(t, w.Sets(), sets)
		Put(t, w.Elements(), members(elements...))
		WantRules(t, w, sets, elements, nil)
	}
	for range 2 { // the second time they are gone already
		Put(t, w.Elements(), nil, elements...)
		WantRules(t, w, sets, nil, nil)
	}
	Put(t, w.Elements(), members(elements...))
	Put(t, w.Elements(), members(Member("pools4", "10.9.0.0/24")), Member("pools4", "10.9.0.0/26"), Member("pools4", "10.9.0.64"), Member("pools4", "10.9.0.66"))
	elements = append(slices.DeleteFunc(elements, func(e kernel.Element) bool {
		return e.Set == "pools4" && netip.MustParsePrefix("10.9.0.0/24").Overlaps(e.Prefix)
	}), Member("pools4", "10.9.0.0/24"))
	WantRules(t, w, sets, elements, nil)
	for range 2 {
		Put(t, w.Sets(), nil, slices.Collect(maps.Keys(sets))...)
		WantRules(t, w, nil, nil, nil)
	}
}

// keyedElements are elements of keys other than addresses alone.
func keyedElements() []kernel.Element {
	elements := []kernel.Element{
		{Set: "ports"}, {Set: "ports", Port: 1}, {Set: "ports", Port: 256}, {Set: "ports", Port: 65535},
		// Single ones, neighbours, with a gap, and at both ends.
		{Set: "port-ranges"}, {Set: "port-ranges", Port: 1, LastPort: 2}, {Set: "port-ranges", Port: 3}, {Set: "port-ranges", Port: 5, LastPort: 255},
		{Set: "port-ranges", Port: 256, LastPort: 65534}, {Set: "port-ranges", Port: 65535},
	}
	for set, addrs := range map[string][]string{"4": {"192.0.2.1", "192.0.2.2"}, "6": {"2001:db8::1", "2001:db8::2"}} {
		for _, addr := range addrs {
			for _, port := range []uint16{0, 53, 65535} {
				for _, protocol := range []uint8{kernel.ProtoTCP, kernel.ProtoUDP, 255} {
					e := Member("services"+set, addr)
					e.Protocol, e.Port = protocol, port
					elements = append(elements, e)
				}
			}
			for _, link := range []string{"a", "cairn0", "fifteen-letters"} {
				e := Member("sources"+set, addr)
				e.Beside = link
				elements = append(elements, e)
			}
		}
	}
	return elements
}

func badSets(t *testing.T, w RulesWorld) {
	good := kinds()
	set := maps.Clone(good)
	bad := map[string]error{"": syscall.EINVAL, "two words": syscall.EINVAL, "1st": syscall.EINVAL, "other": syscall.EINVAL}
	for name := range bad {
		set[name] = kernel.Set{}
	}
	set["other"] = kernel.Set{Other: "map"}
	for name, s := range map[string]kernel.Set{
		`back\slash`: {}, "keys": {Keys: "marks"}, "ranges-of-services": {Keys: kernel.KeysServices, Ranges: true},
		"ranges-of-sources": {Keys: kernel.KeysSources, Ranges: true}, "ranges-of-links": {Keys: kernel.KeysLinks, Ranges: true},
		"family-of-ports": {Keys: kernel.KeysPorts, IPv6: true}, "family-of-links": {Keys: kernel.KeysLinks, IPv6: true},
	} {
		set[name], bad[name] = s, syscall.EINVAL
	}
	wantFailures(t, w.Sets().Write(t.Context(), set, nil), "set", bad)
	WantRules(t, w, good, nil, nil)
}

func badElements(t *testing.T, w RulesWorld) {
	Put(t, w.Sets(), kinds())
	there := []kernel.Element{Member("pools4", "10.1.0.0/16"), Member("pools6", "fd00:1::/64"), {Set: "port-ranges", Port: 100, LastPort: 200}}
	Put(t, w.Elements(), members(there...))
	good := []kernel.Element{
		Member("nodes4", "192.0.2.1"), Member("nodes4", "192.0.2.2"), Member("nodes6", "2001:db8::1"),
		Member("pools4", "10.0.0.0/16"), Member("pools4", "10.2.0.0/16"), Member("pools6", "fd00:2::/64"),
		{Set: "port-ranges", Port: 99}, {Set: "port-ranges", Port: 201, LastPort: 300},
	}
	with := func(set, addr string, change func(*kernel.Element)) kernel.Element {
		e := Member(set, addr)
		change(&e)
		return e
	}
	bad := map[kernel.Element]error{
		Member("gone", "192.0.2.1"):                                      syscall.ENOENT,
		Member("gone", "192.0.2.2"):                                      syscall.ENOENT,
		Member("nodes4", "2001:db8::1"):                                  syscall.EINVAL,
		Member("nodes6", "192.0.2.1"):                                    syscall.EINVAL,
		Member("nodes4", "192.0.2.0/24"):                                 syscall.EINVAL,
		Member("pools4", "10.3.0.1/16"):                                  syscall.EINVAL,
		{Set: "nodes4"}:                                                  syscall.EINVAL,
		Member("pools4", "10.1.0.0/17"):                                  syscall.EEXIST,
		Member("pools4", "10.1.2.0/24"):                                  syscall.EEXIST,
		Member("pools4", "10.0.0.0/8"):                                   syscall.EEXIST,
		Member("pools4", "10.1.255.255"):                                 syscall.EEXIST,
		Member("pools6", "fd00:1::/65"):                                  syscall.EEXIST,
		Member("pools6", "fd00:1::/48"):                                  syscall.EEXIST,
		Member("nodes4", "::ffff:192.0.2.1"):                             syscall.EINVAL,
		Member("pools4", "10.5.0.0").To(netip.MustParseAddr("10.5.0.9")): syscall.EINVAL,

		{Set: "port-ranges", Port: 200, LastPort: 201}: syscall.EEXIST,
		{Set: "port-ranges", Port: 100}:                syscall.EEXIST,
		{Set: "port-ranges", Port: 120, LastPort: 130}: syscall.EEXIST,
		{Set: "port-ranges", Port: 50, LastPort: 250}:  syscall.EEXIST,
		{Set: "port-ranges", Port: 80, LastPort: 80}:   syscall.EINVAL,
		{Set: "port-ranges", Port: 80, LastPort: 79}:   syscall.EINVAL,
		{Set: "ports", Port: 80, LastPort: 81}:         syscall.EINVAL,
		Member("ports", "192.0.2.1"):                   syscall.EINVAL,
		Member("from/pod", "192.0.2.1"):                syscall.EINVAL,
		{Set: "from/pod", Beside: "cairn0"}:            syscall.EINVAL,
		{Set: "services4", Protocol: 6, Port: 80}:      syscall.EINVAL,
		Member("services4", "192.0.2.1"):               syscall.EINVAL,
		Member("sources4", "192.0.2.1"):                syscall.EINVAL,
		{Set: "sources4", Beside: "cairn0"}:            syscall.EINVAL,

		with("nodes4", "192.0.2.1", func(e *kernel.Element) { e.Port = 80 }):                                 syscall.EINVAL,
		with("nodes4", "192.0.2.1", func(e *kernel.Element) { e.Beside = "cairn0" }):                         syscall.EINVAL,
		with("services4", "2001:db8::1", func(e *kernel.Element) { e.Protocol, e.Port = 6, 80 }):             syscall.EINVAL,
		with("services4", "192.0.2.0/24", func(e *kernel.Element) { e.Protocol, e.Port = 6, 80 }):            syscall.EINVAL,
		with("services4", "192.0.2.1", func(e *kernel.Element) { e.Protocol, e.Port, e.LastPort = 6, 1, 2 }): syscall.EINVAL,
		with("sources6", "192.0.2.1", func(e *kernel.Element) { e.Beside = "cairn0" }):                       syscall.EINVAL,
		with("sources4", "192.0.2.1", func(e *kernel.Element) { e.Beside = "cairn*" }):                       syscall.EINVAL,
		with("sources4", "192.0.2.1", func(e *kernel.Element) { e.Beside, e.Port = "cairn0", 80 }):           syscall.EINVAL,
		with("sources4", "192.0.2.1", func(e *kernel.Element) { e.Beside = "sixteen-letters-" }):             syscall.EINVAL,
	}
	// What overlaps another new one would fail by chance.
	for e, want := range bad {
		set := members(good...)
		set[e] = struct{}{}
		if want == syscall.EEXIST && (e.Prefix.Bits() == 8 || e.LastPort > 200) {
			set = members(e, good[0])
		}
		wantFailures(t, w.Elements().Write(t.Context(), set, nil), "set", map[kernel.Element]error{e: want})
	}
	WantRules(t, w, kinds(), append(good, there...), nil)
	// Some of those to be deleted are not there.
	Put(t, w.Elements(), nil, append(good, Member("gone", "192.0.2.1"), Member("nodes4", "192.0.2.3"), Member("pools4", "10.8.0.0/16"), Member("pools4", "10.1.0.0/17"))...)
	WantRules(t, w, kinds(), there, nil)
}

func manyElements(t *testing.T, w RulesWorld) {
	const many = 5000
	var elements []kernel.Element
	for i := range many {
		four, six := netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), netip.AddrFrom16([16]byte{0xfd, 14: byte(i >> 8), 15: byte(i)})
		elements = append(elements,
			kernel.Element{Set: "nodes4", Prefix: netip.PrefixFrom(four, 32)}, kernel.Element{Set: "nodes6", Prefix: netip.PrefixFrom(six, 128)})
		if i%10 == 0 { // there are fewer pools than nodes
			elements = append(elements,
				kernel.Element{Set: "pools4", Prefix: netip.PrefixFrom(four, 32)}, kernel.Element{Set: "pools6", Prefix: netip.PrefixFrom(six, 128)})
		}
	}
	Put(t, w.Sets(), kinds())
	half := elements[:len(elements)/2]
	Put(t, w.Elements(), members(half...))
	WantRules(t, w, kinds(), half, nil)
	bad := Member("gone", "10.0.0.1")
	wantFailures(t, w.Elements().Write(t.Context(), members(append(slices.Clone(elements), bad)...), nil), "set", map[kernel.Element]error{bad: syscall.ENOENT})
	WantRules(t, w, kinds(), elements, nil)
	Put(t, w.Elements(), nil, half...)
	WantRules(t, w, kinds(), elements[len(half):], nil)
	Put(t, w.Elements(), nil, elements...) // half of them are gone
	WantRules(t, w, kinds(), nil, nil)
}
