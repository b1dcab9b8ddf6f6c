//go:build linux

package needs

import "testing"

func TestMakes(t *testing.T) {
	for kind, want := range map[string]bool{"veth": true, "no-such-kind": false} {
		if got, err := makes(kind); err != nil || got != want {
			t.Errorf("makes(%q) = %v, %v; want %v", kind, got, err, want)
		}
	}
}

// TestLinkVM shows that the VM has what it is there for.
func TestLinkVM(t *testing.T) {
	for _, kind := range []string{"ipip", "wireguard"} {
		t.Run(kind, func(t *testing.T) { Link(t, kind) })
	}
}
