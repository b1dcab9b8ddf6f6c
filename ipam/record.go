package ipam

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"time"
)

// journalVersion is the version of the format that the first line names.
const journalVersion = 1

// record is one line of the journal; one of its fields is set. A line is the
// CRC-32C of the JSON text in eight hex digits, a space, and the JSON text.
type record struct {
	Journal int         `json:"journal,omitempty"` // version; first line only
	Use     *useRecord  `json:"use,omitempty"`
	Free    *freeRecord `json:"free,omitempty"`
	// Complete says that from here on the journal knows all uses and what rests:
	// what got lost before has been made good.
	Complete bool `json:"complete,omitempty"`
}

// useRecord says that a container uses addresses from now on.
type useRecord struct {
	ContainerID string            `json:"containerID"`
	Interface   string            `json:"interface"`
	IPv4        netip.Addr        `json:"ipv4,omitzero"`
	IPv6        netip.Addr        `json:"ipv6,omitzero"`
	Namespace   string            `json:"namespace,omitempty"`
	Pod         string            `json:"pod,omitempty"`
	HostLink    string            `json:"hostLink,omitempty"`
	Netns       string            `json:"netns,omitempty"`
	Network     string            `json:"network,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	// Not in records of versions before policies.
	ServiceAccount string      `json:"serviceAccount,omitempty"`
	Ports          []NamedPort `json:"ports,omitempty"`
}

// freeRecord says that a container uses nothing any more, and since when which
// addresses rest.
type freeRecord struct {
	ContainerID string       `json:"containerID"`
	Interface   string       `json:"interface"`
	At          time.Time    `json:"at"`
	Addresses   []netip.Addr `json:"addresses,omitempty"`
}

func use(a Assignment) record {
	return record{Use: &useRecord{
		ContainerID: a.ContainerID, Interface: a.Interface, IPv4: a.IPv4, IPv6: a.IPv6,
		Namespace: a.Namespace, Pod: a.Pod, HostLink: a.HostLink, Netns: a.Netns, Network: a.Network, Labels: a.Labels,
		ServiceAccount: a.ServiceAccount, Ports: a.Ports,
	}}
}

func unuse(a Assignment, at time.Time) record {
	return record{Free: &freeRecord{ContainerID: a.ContainerID, Interface: a.Interface, At: at, Addresses: a.Addrs()}}
}

func (u *useRecord) assignment() Assignment {
	return Assignment{
		Handle: Handle{ContainerID: u.ContainerID, Interface: u.Interface}, IPv4: u.IPv4, IPv6: u.IPv6,
		Namespace: u.Namespace, Pod: u.Pod, HostLink: u.HostLink, Netns: u.Netns, Network: u.Network, Labels: u.Labels,
		ServiceAccount: u.ServiceAccount, Ports: u.Ports,
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendLine appends the record's line to b.
func (r record) appendLine(b []byte) ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return b, fmt.Errorf("encode record: %w", err)
	}
	b = fmt.Appendf(b, "%08x ", crc32.Checksum(text, castagnoli))
	return append(append(b, text...), '\n'), nil
}

// parseLine is the reverse of appendLine, without the line's end.
func parseLine(line []byte) (record, error) {
	var r record
	sum, text, ok := bytes.Cut(line, []byte(" "))
	want, err := hex.DecodeString(string(sum))
	if !ok || err != nil || len(want) != 4 {
		return r, errors.New("no checksum")
	}
	if got := crc32.Checksum(text, castagnoli); !bytes.Equal(want, []byte{byte(got >> 24), byte(got >> 16), byte(got >> 8), byte(got)}) {
		return r, errors.New("wrong checksum")
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, err
	}
	if r.Journal == 0 && r.Use == nil && r.Free == nil && !r.Complete {
		return r, errors.New("unknown record")
	}
	return r, nil
}

// ledger is what the records of a journal add up to.
type ledger struct {
	uses     map[Handle]Assignment
	resting  map[netip.Addr]time.Time // freed addresses that may still rest
	users    map[netip.Addr]Handle
	complete bool
}

func newLedger() *ledger {
	return &ledger{uses: map[Handle]Assignment{}, resting: map[netip.Addr]time.Time{}, users: map[netip.Addr]Handle{}}
}

// apply advances the ledger. A later use of an address ends an earlier one: the
// record that freed it got lost.
func (l *ledger) apply(r record) {
	switch {
	case r.Use != nil:
		a := r.Use.assignment()
		l.drop(a.Handle)
		for _, ip := range a.Addrs() {
			if h, ok := l.users[ip]; ok {
				l.drop(h)
			}
			l.users[ip] = a.Handle
			delete(l.resting, ip)
		}
		l.uses[a.Handle] = a
	case r.Free != nil:
		l.drop(Handle{ContainerID: r.Free.ContainerID, Interface: r.Free.Interface})
		for _, ip := range r.Free.Addresses {
			if _, used := l.users[ip]; !used {
				l.resting[ip] = r.Free.At
			}
		}
	case r.Complete:
		l.complete = true
	}
}

func (l *ledger) drop(h Handle) {
	for _, ip := range l.uses[h].Addrs() {
		delete(l.users, ip)
	}
	delete(l.uses, h)
}

// records returns the shortest journal that adds up to the ledger; of addresses
// that rest, those freed after since.
func (l *ledger) records(since time.Time) []record {
	rs := []record{{Journal: journalVersion}}
	for ip, at := range l.resting {
		if at.After(since) {
			rs = append(rs, record{Free: &freeRecord{At: at, Addresses: []netip.Addr{ip}}})
		}
	}
	for _, a := range l.uses {
		rs = append(rs, use(a))
	}
	if l.complete {
		rs = append(rs, record{Complete: true})
	}
	return rs
}
