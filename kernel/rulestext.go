package kernel

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

// RulesText returns Cairn's table of nftables as "nft -py list table inet cairn"
// writes it, but that each element has a line of its own: what nft(8) can read,
// for golden files and for people. All is in order of its name.
func RulesText(sets iter.Seq2[string, Set], elements iter.Seq2[Element, struct{}], chains iter.Seq2[string, Chain]) string {
	members := make(map[string][]Element)
	for e := range elements {
		members[e.Set] = append(members[e.Set], e)
	}
	entries := make(map[string][]string) // of each verdict map
	lists := make(map[string]Chain)
	for key, c := range chains {
		if verdicts, link, ok := ParseEntryKey(key); ok {
			entries[verdicts] = append(entries[verdicts], fmt.Sprintf("%q : %s", link, c))
		} else {
			lists[key] = c
		}
	}
	var blocks []string
	kinds := maps.Collect(sets)
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		if s := kinds[name]; s.Keys == KeysLinks {
			blocks = append(blocks, block("map "+name, append(s.lines(), elementLines(slices.Sorted(slices.Values(entries[name])))...)))
		} else {
			blocks = append(blocks, block("set "+name, append(s.lines(), elementLines(texts(members[name]))...)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		var lines []string
		if text := lists[name].String(); text != "" {
			lines = strings.Split(text, "\n")
		}
		blocks = append(blocks, block("chain "+name, lines))
	}
	return "table inet " + RulesTable + " {\n" + strings.Join(blocks, "\n") + "}\n"
}

// block writes something in a table.
func block(head string, lines []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\t%s {\n", head)
	for _, l := range lines {
		fmt.Fprintf(&b, "\t\t%s\n", l)
	}
	b.WriteString("\t}\n")
	return b.String()
}

// lines returns what makes a set of this kind.
func (s Set) lines() []string {
	address := "ipv4_addr"
	if s.IPv6 {
		address = "ipv6_addr"
	}
	var lines []string
	switch s.Keys {
	case KeysAddresses:
		lines = []string{"type " + address}
	case KeysPorts:
		lines = []string{"type inet_service"}
	case KeysServices:
		lines = []string{"type " + address + " . inet_proto . inet_service"}
	case KeysSources:
		lines = []string{"type ifname . " + address}
	case KeysLinks:
		lines = []string{"type ifname : verdict"}
	}
	if s.Ranges {
		lines = append(lines, "flags interval")
	}
	if s.Other != "" {
		lines = append(lines, "# "+s.Other)
	}
	return lines
}

// texts returns elements in order, as nft(8) writes them.
func texts(members []Element) []string {
	slices.SortFunc(members, Element.compare)
	out := make([]string, len(members))
	for i, e := range members {
		out[i] = e.text()
	}
	return out
}

func elementLines(texts []string) []string {
	lines := make([]string, len(texts))
	for i, text := range texts {
		before, after := "             ", ","
		if i == 0 {
			before = "elements = { "
		}
		if i == len(texts)-1 {
			after = " }"
		}
		lines[i] = before + text + after
	}
	return lines
}
