package kernel

import "encoding/base32"

// SharedID says which of the shared sets of a family one is.
type SharedID [10]byte

// sharedLen is the length of the name of a shared set: m4/ or m6/ and the ID.
const sharedLen = len("m4/") + 16

var sharedEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// SharedName returns the name that a Set that is Shared must have.
func SharedName(ipv6 bool, id SharedID) string {
	prefix := "m4/"
	if ipv6 {
		prefix = "m6/"
	}
	return prefix + sharedEncoding.EncodeToString(id[:])
}

// IsSharedName says whether a name has the form of those of sets that are Shared.
func IsSharedName(name string) bool {
	return len(name) == sharedLen && name[0] == 'm' && name[2] == '/' && (name[1] == '4' || name[1] == '6')
}

// ParseSharedName returns what SharedName was made of, and false for the name of a set
// that is not Shared.
func ParseSharedName(name string) (ipv6 bool, id SharedID, ok bool) {
	if !IsSharedName(name) {
		return false, id, false
	}
	n, err := sharedEncoding.Decode(id[:], []byte(name[3:]))
	return name[1] == '6', id, err == nil && n == len(id)
}

// SharedPrefix returns the first ten bits of the ID in the name of a shared set.
func SharedPrefix(name string) int { return 32*sharedDigit(name[3]) + sharedDigit(name[4]) }

// sharedDigit returns the value of a digit of an ID, of five bits.
func sharedDigit(c byte) int {
	if c >= 'a' {
		return int(c-'a') & 31
	}
	return (int(c-'2') + 26) & 31
}

// checkShared says what is wrong with a set as for being shared.
func (s Set) checkShared(name string) error {
	ipv6, _, named := ParseSharedName(name)
	switch {
	case named != s.Shared || named != IsSharedName(name):
		return invalid("%q is the name of a shared set, or is no such name", name)
	case s.Shared && (s.Keys != KeysAddresses || s.Ranges || s.IPv6 != ipv6):
		return invalid("a shared set has single addresses of the family that is in its name")
	}
	return nil
}
