//go:build linux

package linux

import (
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// rulesGroup is the multicast group of changes of nftables, as a bit from group 1
// on.
const rulesGroup = 1 << (unix.NFNLGRP_NFTABLES - 1)

// watchRules calls changed whenever another process has changed our table, or may
// have, until stop is called or the kernel can't be asked; then it calls ended
// with the reason. A kernel without nftables has nothing to tell.
func (c config) watchRules(buffer int, changed func(), ended func(error)) (stop func(), err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: c.netns, Groups: rulesGroup, MessageBufferSize: receiveBuffer})
	if err := refusal(err); errors.Is(err, kernel.ErrUnsupported) {
		return func() {}, nil
	} else if err != nil {
		return nil, fmt.Errorf("watch rules: %w", err)
	}
	if err := conn.SetReadBuffer(buffer); err != nil {
		conn.Close()
		return nil, fmt.Errorf("watch rules: enlarge socket buffer: %w", err)
	}
	deaf := c.listen(&listener{conn, changed})
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended(fmt.Errorf("watch rules: %w", followRules(conn, changed)))
	}()
	return func() {
		deaf()
		conn.Close()
		<-done
	}, nil
}

// followRules receives until the socket fails.
func followRules(conn *netlink.Conn, changed func()) error {
	var t transactionTold
	for {
		messages, err := conn.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS): // lost some
			t = transactionTold{}
			changed()
		case err != nil:
			return refusal(err)
		}
		for _, m := range messages {
			if t.hear(m) {
				changed()
			}
		}
	}
}

// transactionTold is what was told of a transaction so far.
type transactionTold struct{ ours bool } // that it is about our table

// hear takes a message in, and says whether it ends a transaction by which another
// process changed our table. A transaction's last message is that of the new
// generation of all tables. It has the sequence number of the request, which the
// kernel leaves out when it tells of elements.
func (t *transactionTold) hear(m netlink.Message) (changed bool) {
	if m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
		changed = t.ours && !ourSequence(m.Header.Sequence)
		t.ours = false
		return changed
	}
	if t.ours || len(m.Data) == 0 || m.Data[0] != unix.NFPROTO_INET {
		return false
	}
	err := attributes(m.Data, func(ad *netlink.AttributeDecoder) {
		// The name of the table is the same attribute of every kind of object.
		t.ours = t.ours || ad.Type() == unix.NFTA_TABLE_NAME && ad.String() == kernel.RulesTable
	})
	t.ours = t.ours || err != nil
	return false
}
