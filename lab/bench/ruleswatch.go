package bench

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ruleset is what the kernel tells of nftables: the rules and elements in whose
// messages what, which is made by portData or memberData, is found, and the ends of
// all transactions.
func ruleset(what []byte) watched {
	return watched{unix.NETLINK_NETFILTER, []uint{unix.NFNLGRP_NFTABLES}, func(m syscall.NetlinkMessage) (told, bool) {
		t := told{}
		switch m.Header.Type &^ (unix.NFNL_SUBSYS_NFTABLES << 8) {
		case unix.NFT_MSG_NEWGEN:
			t.what = generation
			return t, true
		case unix.NFT_MSG_NEWRULE:
			t.what = rule
		case unix.NFT_MSG_DELRULE:
			t.what, t.delete = rule, true
		case unix.NFT_MSG_NEWSETELEM:
			t.what = element
		case unix.NFT_MSG_DELSETELEM:
			t.what, t.delete = element, true
		}
		t.count = bytes.Count(m.Data, what)
		return t, t.count > 0
	}}
}

// portData is a port as rules and elements hold it.
func portData(port uint16) []byte { return valueData(binary.BigEndian.AppendUint16(nil, port)) }

// memberData is an address as the elements of shared sets hold it: behind the end of an ID.
func memberData(a netip.Addr) []byte { return append([]byte{0, 0}, a.AsSlice()...) }

// valueData returns the attribute NFTA_DATA_VALUE.
func valueData(value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofNlAttr+len(value)))
	return slices.Concat(binary.NativeEndian.AppendUint16(b, unix.NFTA_DATA_VALUE), value)
}

// waitRules returns when the kernel had so many new rules or elements of what is
// watched, at the end of the transaction that brought the last, and ends the watch.
func (w *kernelWatch) waitRules(of change, count int) (time.Time, error) {
	return w.until(func(t told) bool {
		if t.what == of && !t.delete {
			count -= t.count
		}
		return count <= 0 && t.what == generation
	})
}
