//go:build linux

package linux

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"cairn.network/cairn/kernel"
)

func (t ruleElements) Read(ctx context.Context) (map[kernel.Element]struct{}, error) {
	have := make(map[kernel.Element]struct{})
	err := t.readRules("read elements", func(conn *rulesConn) error {
		sets, err := conn.sets(ctx)
		if err != nil {
			return err
		}
		for _, s := range sets {
			if s.Other != "" {
				continue // its elements may be anything, and go with it
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
	var found []boundary
	err := c.list(ctx, unix.NFT_MSG_GETSETELEM, func() { found = nil }, func(data []byte) error {
		some, err := parseElements(data)
		found = append(found, some...)
		return err
	}, text(unix.NFTA_SET_ELEM_LIST_SET, s.name))
	if err != nil {
		return nil, err
	}
	if s.Ranges {
		return ranges(s.name, found), nil
	}
	elements := make([]kernel.Element, len(found))
	for i, b := range found {
		elements[i] = kernel.Element{Set: s.name, Prefix: netip.PrefixFrom(b.addr, b.addr.BitLen())}
	}
	return elements, nil
}

// ranges puts boundaries together: a range goes up to the next end. nft(8) writes
// an end before the first range too.
func ranges(set string, found []boundary) []kernel.Element {
	slices.SortFunc(found, func(a, b boundary) int {
		if a.addr == b.addr && a.end != b.end {
			if a.end {
				return -1
			}
			return 1
		}
		return a.addr.Compare(b.addr)
	})
	var elements []kernel.Element
	for i, b := range found {
		if b.end {
			continue
		}
		last := lastOf(kernel.Element{Prefix: netip.PrefixFrom(b.addr, 0)})
		if i+1 < len(found) && found[i+1].end {
			last = found[i+1].addr.Prev()
		}
		elements = append(elements, rangeOf(set, b.addr, last))
	}
	return elements
}

// rangeOf returns the element from first to last: a prefix where it is one.
func rangeOf(set string, first, last netip.Addr) kernel.Element {
	for bits := first.BitLen(); bits >= 0; bits-- {
		p := netip.PrefixFrom(first, bits)
		if p.Masked() != p {
			break
		}
		if e := (kernel.Element{Set: set, Prefix: p}); lastOf(e) == last {
			return e
		}
	}
	return kernel.Element{Set: set, Prefix: netip.PrefixFrom(first, first.BitLen()), Last: last}
}

type elementsWrite struct{ rulesWrite[kernel.Element] }

func (t ruleElements) Write(ctx context.Context, set map[kernel.Element]struct{}, del []kernel.Element) error {
	w := &elementsWrite{rulesWrite[kernel.Element]{setting: len(set) > 0}}
	plan := func(conn *rulesConn) error {
		adds, dels := bySet(maps.Keys(set)), bySet(slices.Values(del))
		names := slices.Collect(maps.Keys(adds))
		for name := range dels {
			if _, too := adds[name]; !too {
				names = append(names, name)
			}
		}
		have, err := conn.setsNamed(ctx, names)
		if err != nil {
			return err
		}
		// What goes makes room for what comes.
		for name, elements := range dels {
			if s, exists := have[name]; exists {
				w.change("delete", s, elements)
			}
		}
		for name, elements := range adds {
			s, exists := have[name]
			w.change("set", s, slices.DeleteFunc(elements, func(e kernel.Element) bool {
				err := e.Check(s)
				if !exists {
					err = fmt.Errorf("set %s: %w", name, unix.ENOENT)
				}
				if err != nil {
					w.fail("set", e, err)
				}
				return err != nil
			}))
		}
		return nil
	}
	return w.run(ctx, t.rulesDriver, "write elements", plan, nil)
}

// bySet returns the elements of each set.
func bySet(elements iter.Seq[kernel.Element]) map[string][]kernel.Element {
	m := make(map[string][]kernel.Element)
	for e := range elements {
		m[e.Set] = append(m[e.Set], e)
	}
	return m
}

// change adds what the elements of one set need to the transaction.
func (w *elementsWrite) change(op string, s kernel.Set, elements []kernel.Element) {
	kind, flags := unix.NFT_MSG_NEWSETELEM, netlink.Create
	if op == "delete" {
		kind, flags = unix.NFT_MSG_DELSETELEM, 0
	}
	for some := range slices.Chunk(elements, maxElements) {
		w.units = append(w.units, unit[kernel.Element]{op, some, func(es []kernel.Element) []netlink.Message {
			return []netlink.Message{setElements(kind, flags, s, es)}
		}})
	}
}
