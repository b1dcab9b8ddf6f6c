//go:build linux

package linux

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

func (t ruleElements) Read(ctx context.Context) (map[kernel.Element]struct{}, error) {
	have := make(map[kernel.Element]struct{})
	err := t.readRules("read elements", func(conn *rulesConn) error {
		sets, holders, err := conn.sets(ctx)
		if err != nil {
			return err
		}
		for _, s := range append(sets, holders...) {
			if s.Other != "" || s.Keys == kernel.KeysLinks || s.Shared || s.Keys == keysShared {
				continue // they may be anything, and go with it; are entries; or are held elsewhere
			}
			found, err := conn.elements(ctx, s)
			if err != nil {
				return err
			}
			for _, e := range found {
				have[e] = struct{}{}
			}
		}
		return nil
	})
	return have, err
}

// elements lists the elements of a set.
func (c *rulesConn) elements(ctx context.Context, s setFound) ([]kernel.Element, error) {
	found, err := c.boundaries(ctx, s.name)
	return elementsOf(s, found), err
}

// boundaries lists the elements of a set as the kernel has them.
func (c *rulesConn) boundaries(ctx context.Context, set string) (found []boundary, err error) {
	err = c.list(ctx, unix.NFT_MSG_GETSETELEM, func() { found = nil }, func(data []byte) error {
		some, err := parseElements(data)
		found = append(found, some...)
		return err
	}, text(unix.NFTA_SET_ELEM_LIST_SET, set))
	return found, err
}

type elementsWrite struct {
	rulesWrite[kernel.Element]
	made []string // holders of shared sets that are made if need be
}

func (t ruleElements) Write(ctx context.Context, set map[kernel.Element]struct{}, del []kernel.Element) error {
	w := &elementsWrite{rulesWrite: rulesWrite[kernel.Element]{setting: len(set) > 0}}
	plan := func(conn *rulesConn) error {
		adds, dels := byHolder(maps.Keys(set)), byHolder(slices.Values(del))
		names := make(map[string]bool)
		for _, elements := range []map[string][]kernel.Element{adds, dels} {
			for _, some := range elements {
				for _, e := range some {
					names[e.Set] = true
				}
			}
		}
		have, err := conn.find(ctx, slices.Collect(maps.Keys(names)), nil)
		if err != nil {
			return err
		}
		there := func(e kernel.Element) bool { _, exists := have.sets[e.Set]; return exists }
		holders := slices.Collect(maps.Keys(adds))
		for holder := range dels {
			if _, too := adds[holder]; !too {
				holders = append(holders, holder)
			}
		}
		for _, holder := range holders { // what goes makes room for what comes
			coming := slices.DeleteFunc(adds[holder], func(e kernel.Element) bool {
				err := e.Check(have.sets[e.Set])
				if !there(e) {
					err = fmt.Errorf("set %s: %w", e.Set, unix.ENOENT)
				}
				if err != nil {
					w.fail("set", e, err)
				}
				return err != nil
			})
			w.hold(conn, holder, coming)
			w.change("delete", have.sets, slices.DeleteFunc(dels[holder], func(e kernel.Element) bool { return !there(e) && !kernel.IsSharedName(e.Set) }))
			w.change("set", have.sets, coming)
		}
		w.early = chunks(w.units, func(a, b unit[kernel.Element]) bool { return holderOf(a.keys[0].Set) == holderOf(b.keys[0].Set) })
		w.units = nil
		return nil
	}
	done := func(conn *rulesConn) error {
		for _, holder := range w.made {
			conn.known.holders[holder] = len(w.failed) == 0
		}
		return nil
	}
	return w.run(ctx, t.rulesDriver, "write elements", plan, done)
}

// hold has elements of shared sets come with what holds them, unless that is there for
// sure: another hand can delete it as long as no chain asks for it.
func (w *elementsWrite) hold(conn *rulesConn, holder string, elements []kernel.Element) {
	if len(elements) == 0 || !kernel.IsSharedName(elements[0].Set) || conn.known.holders[holder] {
		return
	}
	w.made = append(w.made, holder)
	w.units = append(w.units, unitOf("set", elements[0], haveSet(holder, holderKind(holder), uint32(len(w.made)))))
}

// byHolder returns the elements of each set of the kernel's.
func byHolder(elements iter.Seq[kernel.Element]) map[string][]kernel.Element {
	sizes := make(map[string]int)
	for e := range elements {
		sizes[holderOf(e.Set)]++
	}
	m := make(map[string][]kernel.Element, len(sizes))
	for e := range elements {
		holder := holderOf(e.Set)
		some := m[holder]
		if some == nil {
			some = make([]kernel.Element, 0, sizes[holder])
		}
		m[holder] = append(some, e)
	}
	return m
}

// change adds what the elements of one set of the kernel's need to the transaction.
func (w *elementsWrite) change(op string, sets map[string]kernel.Set, elements []kernel.Element) {
	if len(elements) == 0 {
		return
	}
	s := sets[elements[0].Set]
	if kernel.IsSharedName(elements[0].Set) {
		s = holderKind(elements[0].Set)
	}
	kind, flags := unix.NFT_MSG_NEWSETELEM, netlink.Create
	if op == "delete" {
		kind, flags = unix.NFT_MSG_DELSETELEM, 0
	}
	for some := range slices.Chunk(elements, maxElements) {
		w.units = append(w.units, unit[kernel.Element]{op: op, keys: some, build: func(es []kernel.Element) []netlink.Message {
			return []netlink.Message{setElements(kind, flags, s, es)}
		}})
	}
}

// setElements builds a message that adds or deletes elements of one set.
func setElements(kind int, flags netlink.HeaderFlags, s kernel.Set, elements []kernel.Element) netlink.Message {
	var list []byte
	key := make([]byte, 0, 32)
	for _, e := range elements {
		key = appendKey(key[:0], s, e)
		list = appendElement(list, key, false)
		if !s.Ranges {
			continue
		}
		// A range that reaches to the last key there is has no end.
		if key = appendLast(key[:0], s, e); step(key, 1) {
			list = appendElement(list, key, true)
		}
	}
	return elementsRequest(kind, flags, holderOf(elements[0].Set), list)
}

// elementsRequest builds a message about a list of elements.
func elementsRequest(kind int, flags netlink.HeaderFlags, set string, list []byte) netlink.Message {
	return rulesRequest(kind, flags, text(unix.NFTA_SET_ELEM_LIST_SET, set),
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_LIST_ELEMENTS | unix.NLA_F_NESTED, Data: list})
}

// parseElements returns what a message of a dump says about a set's elements.
func parseElements(data []byte) (found []boundary, err error) {
	err = attributes(data, func(ad *netlink.AttributeDecoder) {
		if ad.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return
		}
		ad.Nested(func(list *netlink.AttributeDecoder) error {
			for list.Next() {
				var b boundary
				list.Nested(func(e *netlink.AttributeDecoder) error { return b.parse(e) })
				found = append(found, b)
			}
			return list.Err()
		})
	})
	return found, err
}

func (b *boundary) parse(e *netlink.AttributeDecoder) error {
	for e.Next() {
		switch e.Type() {
		case unix.NFTA_SET_ELEM_FLAGS:
			b.end = e.Uint32()&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_KEY:
			e.Nested(func(key *netlink.AttributeDecoder) error {
				for key.Next() {
					if key.Type() == unix.NFTA_DATA_VALUE {
						b.key = key.Bytes()
					}
				}
				return nil
			})
		case unix.NFTA_SET_ELEM_DATA:
			e.Nested(b.leadsTo.parse)
		}
	}
	return nil
}
