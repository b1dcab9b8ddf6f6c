//go:build linux

package linux

import (
	"context"
	"fmt"
	"regexp"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// Of shared sets the kernel has a few that hold their elements: those of each whose IDs
// begin alike. The keys are ID and address side by side; a rule loads the ID, which it
// knows, beside the address of the packet. Another set for each family has the IDs of all
// that there are.

// Kinds of keys of what holds shared sets.
const (
	keysMembers kernel.Keys = "members" // ID . address
	keysShared  kernel.Keys = "shared"  // ID
)

// sharedPartCount is how many parts an ID takes in a key.
const sharedPartCount = 3

func sharedParts() []keyPart { return []keyPart{{typeMark, 4}, {typeMark, 4}, {typeMark, 4}} }

// appendID appends the ID of a shared set as keys have it.
func appendID(b []byte, name string) []byte {
	_, id, _ := kernel.ParseSharedName(name)
	return append(append(b, id[:]...), make([]byte, sharedPartCount*registerLen-len(id))...)
}

// sharedName returns the name of the shared set that a key begins with.
func sharedName(ipv6 bool, key []byte) string {
	var id kernel.SharedID
	copy(id[:], key)
	return kernel.SharedName(ipv6, id)
}

// sharedSet returns the kind of a shared set.
func sharedSet(name string) kernel.Set {
	ipv6, _, _ := kernel.ParseSharedName(name)
	return kernel.Set{Shared: true, IPv6: ipv6}
}

// holderBits is how many bits of its ID say where a shared set is held. A set of the
// kernel's that grows while much is put into it takes the longer the larger it is; to
// find one takes the longer the more there are.
const holderBits = 6

// holders are the names of what holds shared sets, by family and the beginning of IDs.
var holders = func() (names [2][1 << holderBits]string) {
	for i, family := range []string{"m4", "m6"} {
		for n := range names[i] {
			names[i][n] = fmt.Sprintf("%s/%02x", family, n)
		}
	}
	return names
}()

// holderOf returns the name of the set of the kernel's that holds the elements of a set:
// its own unless it is shared.
func holderOf(name string) string {
	if !kernel.IsSharedName(name) {
		return name
	}
	i := 0
	if name[1] == '6' {
		i = 1
	}
	return holders[i][kernel.SharedPrefix(name)>>(10-holderBits)]
}

// holderKind returns the kind of a set that holds shared ones, by its name or by that of
// one that it holds.
func holderKind(name string) kernel.Set { return kernel.Set{Keys: keysMembers, IPv6: name[1] == '6'} }

// indexOf returns the name of the set of the kernel's that has the ID of a shared set.
func indexOf(name string) string { return name[:len("m4")] }

var (
	memberHolder = regexp.MustCompile(`^m[46]/[0-9a-f]{2}$`)
	sharedHolder = regexp.MustCompile(`^m[46]$`)
)

// isHolder says whether a set holds shared ones.
func isHolder(name string, s kernel.Set) bool {
	switch s.Keys {
	case keysMembers:
		return memberHolder.MatchString(name) && (name[1] == '6') == s.IPv6
	case keysShared:
		return sharedHolder.MatchString(name)
	}
	return false
}

// shared lists the shared sets, given what holds them.
func (c *rulesConn) shared(ctx context.Context, holders []setFound) (found []setFound, err error) {
	for _, h := range holders {
		if h.Keys != keysShared {
			continue
		}
		ids, err := c.boundaries(ctx, h.name)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			name := sharedName(h.name[1] == '6', id.key)
			found = append(found, setFound{name: name, Set: sharedSet(name)})
		}
	}
	return found, nil
}

// setRequest builds the request that asks for a set.
func setRequest(name string) netlink.Message {
	if kernel.IsSharedName(name) {
		return sharedRequest(unix.NFT_MSG_GETSETELEM, 0, name)
	}
	return rulesRequest(unix.NFT_MSG_GETSET, 0, text(unix.NFTA_SET_NAME, name))
}

// sharedRequest builds a message about the ID of a shared set.
func sharedRequest(kind int, flags netlink.HeaderFlags, name string) netlink.Message {
	return elementsRequest(kind, flags, indexOf(name), appendElement(nil, appendID(nil, name), false))
}

// newShared returns the messages that make a shared set, in the place of one that is not
// shared if there is such. id and the next are unique in the transaction.
func newShared(name string, other bool, id uint32) (messages []netlink.Message) {
	if other {
		messages = append(messages, delSet(name))
	}
	return append(messages,
		haveSet(holderOf(name), holderKind(name), id),
		haveSet(indexOf(name), kernel.Set{Keys: keysShared}, id+1),
		sharedRequest(unix.NFT_MSG_NEWSETELEM, netlink.Create, name))
}

// delShared adds what deletes those of the sets that are shared, with what is in them.
func (w *setsWrite) delShared(ctx context.Context, conn *rulesConn, names []string) error {
	byHolder := make(map[string]map[string]bool)
	for _, name := range names {
		if !kernel.IsSharedName(name) {
			continue
		}
		holder := holderOf(name)
		if byHolder[holder] == nil {
			byHolder[holder] = make(map[string]bool)
		}
		byHolder[holder][name] = true
	}
	for holder, going := range byHolder {
		s := setFound{name: holder, Set: holderKind(holder)}
		elements, err := conn.elements(ctx, s)
		if err != nil {
			return err
		}
		of := make(map[string][]kernel.Element)
		for _, e := range elements {
			if going[e.Set] {
				of[e.Set] = append(of[e.Set], e)
			}
		}
		for name := range going {
			for some := range slices.Chunk(of[name], maxElements) {
				w.add("delete", name, setElements(unix.NFT_MSG_DELSETELEM, 0, s.Set, some))
			}
			w.add("delete", name, sharedRequest(unix.NFT_MSG_DELSETELEM, 0, name))
		}
	}
	return nil
}
