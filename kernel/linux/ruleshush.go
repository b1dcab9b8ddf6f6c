//go:build linux

package linux

import (
	"context"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// While anybody listens, the kernel makes a message of everything that changes, which
// costs more than the change itself. Those who listen in this process want to hear of
// other hands only. So before it writes very much it stops listening, and afterwards the
// rules' generation tells whether another hand was at work meanwhile.

// manyKeys is from how many keys on a Write stops listening: less is heard more cheaply
// than not.
const manyKeys = 1000

// hearing is what listens in this process to changes of rules, by where.
var hearing = struct {
	sync.Mutex
	by map[config][]*listener
}{by: map[config][]*listener{}}

// listener is a socket that is told of changes of rules.
type listener struct {
	conn    *netlink.Conn
	changed func() // another hand has changed something, or may have
}

// listen has a listener stop while this process writes much.
func (c config) listen(l *listener) (stop func()) {
	hearing.Lock()
	defer hearing.Unlock()
	hearing.by[c] = append(hearing.by[c], l)
	return func() {
		hearing.Lock()
		defer hearing.Unlock()
		var rest []*listener
		for _, other := range hearing.by[c] {
			if other != l {
				rest = append(rest, other)
			}
		}
		if hearing.by[c] = rest; len(rest) == 0 {
			delete(hearing.by, c)
		}
	}
}

// hush has nobody in this process listen until listen is called. It comes after hold,
// and only transactions of c may come in between.
func (c *rulesConn) hush(ctx context.Context) (listen func(), err error) {
	// What was changed before the generation that hold found is told by the time that a
	// transaction, if an empty one, has had its turn. What comes later changes it.
	if _, err := c.send([]netlink.Message{batchMessage(unix.NFNL_MSG_BATCH_BEGIN), batchMessage(unix.NFNL_MSG_BATCH_END)}); err != nil {
		return nil, err
	}
	hearing.Lock()
	hushed := hearing.by[c.config]
	hearing.Unlock()
	for _, l := range hushed {
		_ = l.conn.LeaveGroup(unix.NFNLGRP_NFTABLES) // who stays just hears more
	}
	return func() {
		if len(hushed) == 0 {
			return
		}
		for _, l := range hushed {
			if err := l.conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
				l.conn.Close() // its reader tells why nobody hears any more
			}
		}
		if c.Conn != nil {
			if now, err := c.generation(ctx); err == nil && now == c.known.generation && now != 0 {
				return
			}
		}
		for _, l := range hushed {
			l.changed()
		}
	}, nil
}
