package kernel

import (
	"testing"

	"pgregory.net/rapid"
)

func TestSharedName(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var id SharedID
		copy(id[:], rapid.SliceOfN(rapid.Byte(), len(id), len(id)).Draw(t, "id"))
		ipv6 := rapid.Bool().Draw(t, "IPv6")
		name := SharedName(ipv6, id)
		is6, back, ok := ParseSharedName(name)
		if !ok || is6 != ipv6 || back != id || !IsSharedName(name) {
			t.Errorf("%x, IPv6 %t: %s is parsed as %x, %t, %t", id, ipv6, name, back, is6, ok)
		}
		if want := int(id[0])<<2 | int(id[1])>>6; SharedPrefix(name) != want {
			t.Errorf("%s begins with %#x, want %#x", name, SharedPrefix(name), want)
		}
		if err := (Set{Shared: true, IPv6: ipv6}).Check(name); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{
		"", "m4", "m4/", "m4/a", "m5/aaaaaaaaaaaaaaaa", "s4/aaaaaaaaaaaaaaaa", "m4/aaaaaaaaaaaaaaa", "m4/aaaaaaaaaaaaaaaaa", "m4-aaaaaaaaaaaaaaaa",
		"m4/aaaaaaaaaaaaaaa1", "m4/AAAAAAAAAAAAAAAA",
	} {
		if _, _, ok := ParseSharedName(name); ok {
			t.Errorf("%q is taken for the name of a shared set", name)
		}
		if (Set{Shared: true}).Check(name) == nil {
			t.Errorf("%q is good enough for a shared set", name)
		}
	}
	for _, name := range []string{"m4/aaaaaaaaaaaaaaaa", "m6/aaaaaaaaaaaaaaa1"} {
		if (Set{}).Check(name) == nil {
			t.Errorf("%q is good enough for a set that is not shared", name)
		}
	}
}
