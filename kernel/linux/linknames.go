//go:build linux

package linux

import (
	"time"

	"github.com/mdlayher/netlink"
)

// linkNamesAge is how old the name of a link may be where packets are told: so many
// share one question to the kernel, and a link that has just gone still has its name.
const linkNamesAge = time.Second

// linkNames translates indexes of links for whoever listens for long. It is for words
// only: nothing is changed by what it says.
type linkNames struct {
	conn  *netlink.Conn
	asked time.Time
	now   *names
	// before has the names of those that are gone now.
	before map[uint32]string
}

func newLinkNames(conn *netlink.Conn) *linkNames {
	return &linkNames{conn: conn, now: newNames(conn), asked: time.Now()}
}

// name returns the name of the link with this index, the last one that it had, or "#"
// with the number.
func (l *linkNames) name(index uint32) string {
	if time.Since(l.asked) > linkNamesAge {
		l.before, l.now, l.asked = l.now.byName, newNames(l.conn), time.Now()
	}
	name := l.now.name(index)
	if old, ok := l.before[index]; ok && name[0] == '#' {
		l.now.byName[index] = old
		return old
	}
	return name
}
