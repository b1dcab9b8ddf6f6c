//go:build linux

package linux

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

// rulesMark is the upper half of the sequence numbers of this process's
// transactions. The kernel repeats them when it tells about the changes, so that
// the watcher knows its own from others'. Zero is left out: nft begins there.
var rulesMark = 1 + rand.Uint32N(1<<16-1)

// ourSequence says whether a change was made by this process.
func ourSequence(sequence uint32) bool { return sequence>>16 == rulesMark }

// maxTransaction is the most messages in a transaction: what the lower half of a
// sequence number can tell apart, with begin, table and end.
const maxTransaction = 1<<16 - 4

// rulesConn is a socket to nftables. It is kept: when one is closed the kernel
// waits until what was deleted is in nobody's use any more, some milliseconds.
type rulesConn struct {
	config
	*netlink.Conn
	sequence uint16 // of the last message
	known    knownSets
}

func (c *rulesConn) open() error {
	conn, err := c.dial(unix.NETLINK_NETFILTER)
	if err == nil {
		c.Conn = conn
	}
	return err
}

// shut closes the socket, with all that was not received.
func (c *rulesConn) shut() {
	if c.Conn != nil {
		c.Conn.Close()
	}
	c.Conn = nil
}

// unit is a part of a transaction: the messages for some keys. What the kernel
// refuses is built again for each key alone.
type unit[K comparable] struct {
	op    string
	keys  []K
	build func(keys []K) []netlink.Message
	// before goes before what all units build; of one key only.
	before []netlink.Message
	size   int // how many messages; 0: one for all keys
}

// unitOf returns the unit of one key.
func unitOf[K comparable](op string, k K, messages ...netlink.Message) unit[K] {
	return unit[K]{op: op, keys: []K{k}, build: func([]K) []netlink.Message { return messages }, size: len(messages)}
}

// commit makes all units true in one transaction. When the kernel refuses it, the
// keys that are to blame are found and left out, and the others are written. An
// error means that the outcome is unknown for those not in failed.
func commit[K comparable](ctx context.Context, conn *rulesConn, units []unit[K]) (failed []error, err error) {
	for len(units) > 0 {
		if err := ctx.Err(); err != nil {
			return failed, err
		}
		refused, err := transactAgain(ctx, conn, units)
		switch {
		case errors.Is(err, errWhole) && len(units) == 1 && len(units[0].keys) == 1:
			return append(failed, &kernel.KeyError[K]{Op: units[0].op, Key: units[0].keys[0], Err: err}), nil
		case errors.Is(err, errWhole):
			conn.shut() // the rest of the answer
			if err := conn.open(); err != nil {
				return failed, err
			}
			first, second := halves(units)
			failed1, err1 := commit(ctx, conn, first)
			failed2, err2 := commit(ctx, conn, second)
			return append(failed, append(failed1, failed2...)...), cmp.Or(err1, err2)
		case err != nil:
			return failed, err
		case len(refused) == 0:
			return failed, nil
		}
		var rest []unit[K]
		for i, u := range units {
			switch err := refused[i]; {
			case err == nil:
				rest = append(rest, u)
			case len(u.keys) > 1:
				for _, k := range u.keys {
					rest = append(rest, unit[K]{op: u.op, keys: []K{k}, build: u.build})
				}
			case u.op == "delete" && errors.Is(err, unix.ENOENT): // it is gone
			default:
				failed = append(failed, &kernel.KeyError[K]{Op: u.op, Key: u.keys[0], Err: err})
			}
		}
		units = rest
	}
	return failed, nil
}

// manyMessages is about how many messages go into a transaction where several will do:
// the kernel lets nobody else change rules meanwhile.
const manyMessages = 1500

// chunks cuts units into transactions. Those that are together stay so.
func chunks[K comparable](units []unit[K], together func(a, b unit[K]) bool) (transactions [][]unit[K]) {
	begin, size := 0, 0
	for i, u := range units {
		if size >= manyMessages && !together(units[i-1], u) {
			transactions = append(transactions, units[begin:i])
			begin, size = i, 0
		}
		size += max(1, u.size)
	}
	return append(transactions, units[begin:])
}

// apart is for units any of which may begin a transaction.
func apart[K comparable](unit[K], unit[K]) bool { return false }

// halves splits what was refused as a whole; units hold more than one key.
func halves[K comparable](units []unit[K]) (first, second []unit[K]) {
	if n := len(units); n > 1 {
		return units[:n/2], units[n/2:]
	}
	u := units[0]
	n := len(u.keys)
	part := func(keys []K) []unit[K] { return []unit[K]{{op: u.op, keys: keys, build: u.build}} }
	return part(u.keys[:n/2]), part(u.keys[n/2:])
}

// errWhole says that a transaction was refused, but not for which of its parts.
var errWhole = errors.New("transaction refused")

// errConflict says that a transaction came between others and may be sent again.
var errConflict = errors.New("transaction in conflict with another")

// conflictTries bounds how often a transaction in conflict is sent.
const conflictTries = 10

// transactAgain does what transact does, as often as the kernel says to try again.
func transactAgain[K comparable](ctx context.Context, conn *rulesConn, units []unit[K]) (map[int]error, error) {
	for try := 1; ; try++ {
		refused, err := transact(conn, units)
		if !errors.Is(err, errConflict) || try == conflictTries || ctx.Err() != nil {
			return refused, err
		}
		conn.shut() // the rest of the answer
		if err := conn.open(); err != nil {
			return nil, err
		}
	}
}

// conflicts says whether the kernel's answer is to try again.
func conflicts(err error) bool {
	return errors.Is(err, unix.ERESTART) || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)
}

// transact sends the units as one transaction. It returns the first refusal of
// each unit that has one, by its place; any refusal means that nothing was done.
func transact[K comparable](conn *rulesConn, units []unit[K]) (map[int]error, error) {
	messages := []netlink.Message{batchMessage(unix.NFNL_MSG_BATCH_BEGIN)}
	owner := []int{-1} // which unit a message belongs to
	if slices.ContainsFunc(units, func(u unit[K]) bool { return u.op == "set" }) {
		messages, owner = append(messages, newTable()), append(owner, -1)
	}
	add := func(i int, some []netlink.Message) {
		messages = append(messages, some...)
		for range some {
			owner = append(owner, i)
		}
	}
	for i, u := range units {
		add(i, u.before)
	}
	for i, u := range units {
		add(i, u.build(u.keys))
	}
	if len(messages) > maxTransaction {
		return nil, fmt.Errorf("%d messages: %w", len(messages), errWhole)
	}
	messages[len(messages)-1].Header.Flags |= netlink.Acknowledge
	messages = append(messages, batchMessage(unix.NFNL_MSG_BATCH_END))
	first, err := conn.send(messages)
	if err != nil {
		return nil, err
	}
	refused, err := conn.refusals(first, owner)
	if err == nil && len(refused) == 0 {
		conn.known.committed()
	}
	return refused, err
}

// send sends the messages at once and returns the lower half of the sequence
// number of the first.
func (c *rulesConn) send(messages []netlink.Message) (first uint16, err error) {
	size := 0
	first = c.sequence + 1
	for i := range messages {
		m := &messages[i]
		c.sequence++
		m.Header.Sequence = rulesMark<<16 | uint32(c.sequence)
		m.Header.Flags |= netlink.Request
		m.Header.Length = uint32(unix.NLMSG_HDRLEN + len(m.Data))
		size += int(m.Header.Length) + unix.NLMSG_ALIGNTO
	}
	const (
		usual  = 64 << 10 // fits the default buffers
		answer = 2 << 10  // what the kernel accounts for a refusal, beside the request in it
	)
	if n := 2*size + len(messages)*answer; n > usual {
		if err := errors.Join(c.SetWriteBuffer(n), c.SetReadBuffer(n)); err != nil {
			return 0, fmt.Errorf("enlarge socket buffer: %w", refusal(err))
		}
	}
	if _, err := c.SendMessages(messages); err != nil {
		return 0, refusal(err)
	}
	return first, nil
}

// refusals receives what the kernel says to a transaction whose messages have
// these owners. Refusals come in order, after the outcome is decided, and the
// last message is answered in any case.
func (c *rulesConn) refusals(first uint16, owner []int) (map[int]error, error) {
	refused := make(map[int]error)
	for {
		i, err := receiveAnswer(c.Conn)
		if i < 0 {
			return nil, err
		}
		place := int(uint16(i+1) - first)
		switch {
		case place >= len(owner): // belated, to the transaction before
			continue
		case err == nil:
		case conflicts(err):
			return nil, fmt.Errorf("%w: %w", errConflict, err)
		case errors.Is(err, kernel.ErrPermission), errors.Is(err, kernel.ErrUnsupported) && owner[place] < 0, errors.Is(err, unix.ENOMEM):
			return nil, err // for whatever key
		case owner[place] < 0:
			return nil, fmt.Errorf("%w: %w", errWhole, err)
		case refused[owner[place]] == nil:
			refused[owner[place]] = err
		}
		if place == len(owner)-1 {
			return refused, nil
		}
	}
}

// batchMessage begins or ends a transaction of nftables.
func batchMessage(kind netlink.HeaderType) netlink.Message {
	header := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0}
	binary.BigEndian.PutUint16(header[2:], unix.NFNL_SUBSYS_NFTABLES)
	return netlink.Message{Header: netlink.Header{Type: kind}, Data: header}
}

// ask sends requests that are answered by one message each, and calls answer with
// the message or the refusal.
func (c *rulesConn) ask(ctx context.Context, requests []netlink.Message, answer func(m netlink.Message, err error) error) error {
	for start := 0; start < len(requests); start += batchMessages {
		if err := ctx.Err(); err != nil {
			return err
		}
		some := requests[start:min(start+batchMessages, len(requests))]
		if _, err := c.send(some); err != nil {
			return err
		}
		for range some {
			messages, err := c.Receive()
			if refused, ok := errors.AsType[*netlink.OpError](err); err != nil && (!ok || refused.Sequence == 0) {
				return refusal(err)
			}
			var m netlink.Message
			if err == nil && len(messages) == 1 {
				m = messages[0]
			} else if err == nil {
				return fmt.Errorf("%d messages in place of an answer", len(messages))
			}
			if err := answer(m, refusal(err)); err != nil {
				return err
			}
		}
	}
	return nil
}
