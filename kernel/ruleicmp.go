package kernel

import "strconv"

// icmpWords are the words of nft(8) for what ICMP is about, by protocol.
var icmpWords = map[uint8]struct {
	name         string
	types, codes map[uint8]string
}{
	ProtoICMP: {"icmp",
		map[uint8]string{
			0: "echo-reply", 3: "destination-unreachable", 4: "source-quench", 5: "redirect", 8: "echo-request",
			9: "router-advertisement", 10: "router-solicitation", 11: "time-exceeded", 12: "parameter-problem",
			13: "timestamp-request", 14: "timestamp-reply", 15: "info-request", 16: "info-reply",
			17: "address-mask-request", 18: "address-mask-reply",
		},
		map[uint8]string{
			0: "net-unreachable", 1: "host-unreachable", 2: "prot-unreachable", 3: "port-unreachable", 4: "frag-needed",
			9: "net-prohibited", 10: "host-prohibited", 13: "admin-prohibited",
		}},
	ProtoICMPv6: {"icmpv6",
		map[uint8]string{
			1: "destination-unreachable", 2: "packet-too-big", 3: "time-exceeded", 4: "parameter-problem",
			128: "echo-request", 129: "echo-reply", 130: "mld-listener-query", 131: "mld-listener-report",
			132: "mld-listener-done", 133: "nd-router-solicit", 134: "nd-router-advert", 135: "nd-neighbor-solicit",
			136: "nd-neighbor-advert", 137: "nd-redirect", 138: "router-renumbering", 141: "ind-neighbor-solicit",
			142: "ind-neighbor-advert", 143: "mld2-listener-report",
		},
		map[uint8]string{
			0: "no-route", 1: "admin-prohibited", 3: "addr-unreachable", 4: "port-unreachable", 5: "policy-fail",
			6: "reject-route",
		}},
}

// icmp adds what a rule asks of ICMP. nft(8) takes an unequal type and an unequal code
// side by side for one unequal pair, as they are meant here.
func (t *ruleText) icmp(protocol uint8, not string, asked *ICMP) {
	if asked == nil {
		return
	}
	words := icmpWords[protocol]
	t.add("%s type %s%s", words.name, not, wordOr(words.types, asked.Type))
	if !asked.AnyCode {
		t.add("%s code %s%s", words.name, not, wordOr(words.codes, asked.Code))
	}
}

// wordOr returns the word for a number, or the number.
func wordOr(words map[uint8]string, n uint8) string {
	if word := words[n]; word != "" {
		return word
	}
	return strconv.Itoa(int(n))
}
