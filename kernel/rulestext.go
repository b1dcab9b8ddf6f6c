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
	var blocks []string
	kinds := maps.Collect(sets)
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		blocks = append(blocks, block("set "+name, setLines(kinds[name], members[name])))
	}
	lists := maps.Collect(chains)
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

func setLines(s Set, members []Element) []string {
	lines := []string{"type ipv4_addr"}
	if s.IPv6 {
		lines = []string{"type ipv6_addr"}
	}
	if s.Ranges {
		lines = append(lines, "flags interval")
	}
	if s.Other != "" {
		lines = append(lines, "# "+s.Other)
	}
	slices.SortFunc(members, func(a, b Element) int { return a.Prefix.Addr().Compare(b.Prefix.Addr()) })
	for i, e := range members {
		before, after := "             ", ","
		if i == 0 {
			before = "elements = { "
		}
		if i == len(members)-1 {
			after = " }"
		}
		lines = append(lines, before+e.text()+after)
	}
	return lines
}
