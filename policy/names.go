package policy

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strconv"
	"strings"
)

// Groups to which rules log (NFLOG, nfnetlink_log of the kernel). Nobody need
// listen.
const (
	GroupLogged  uint16 = 202 // packets that a rule with action Log matched
	GroupDenied  uint16 = 203 // packets that were denied
	GroupAllowed uint16 = 204 // first packets of connections that were allowed
)

// maxName bounds the name of a chain, in bytes, so that it fits into the prefix of
// a log (Prefix).
const maxName = 100

// maxPart bounds a part of such a name.
const maxPart = 60

// How names of chains begin that are no policy's, or of one before connection tracking.
const (
	tierPrefix      = "tier"
	untrackedPrefix = "untracked"
)

// abbreviations are how names of chains begin, by the policy's kind.
var abbreviations = map[string]string{
	"NetworkPolicy": "np", "GlobalNetworkPolicy": "gnp",
	"KubernetesNetworkPolicy": "knp", "ClusterNetworkPolicy": "cnp",
	"StagedNetworkPolicy": "snp", "StagedGlobalNetworkPolicy": "sgnp",
}

// digest returns a short text that stands for the parts.
func digest(parts ...string) string {
	d := shortDigest(parts...)
	return strings.ToLower(base32.StdEncoding.EncodeToString(d[:]))
}

func shortDigest(parts ...string) (d [10]byte) {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	copy(d[:], h.Sum(nil))
	return d
}

// way is how the name of a chain ends.
func (d Direction) way() string {
	if d == Egress {
		return "out"
	}
	return "in"
}

// chainOf returns how the names of the chains begin that hold a policy's rules; what
// follows stands for the rules, see versioned.
func chainOf(p *Policy, d Direction) string {
	parts := []string{abbreviations[p.Kind]}
	if p.Namespace != "" {
		parts = append(parts, p.Namespace)
	}
	name := strings.Join(append(parts, p.Name, d.way()), "/")
	if len(name) <= maxName && p.Name != "" {
		return name
	}
	cut := p.Name[:min(maxPart, len(p.Name))]
	return strings.Join([]string{parts[0], cut, digest(p.Kind, p.Namespace, p.Name), d.way()}, "/")
}

// tierChain is chainOf of a tier's list of policies.
func tierChain(tier string, d Direction) string {
	if tier == "" {
		tier = "lost"
	}
	return strings.Join([]string{tierPrefix, tier[:min(maxPart, len(tier))], d.way()}, "/")
}

// versioned returns the name of the chain with this content. Chains never change: what
// changes has another name, and all packets go there at once when entries of verdict
// maps do. The kernel does not promise as much of entries and rules together: a packet
// under way may find the new entry, and behind it the old rules.
func versioned(chain string, content ...string) string { return chain + "/" + digest(content...) }

// Unversioned returns how the name of a chain begins: what Output.Policies has it by,
// and Logged.
func Unversioned(chain string) string {
	if i := strings.LastIndexByte(chain, '/'); i >= 0 {
		return chain[:i]
	}
	return chain
}

// Logged is what the prefix of a log says of a packet.
type Logged struct {
	Action Action // Allow, Deny or Log
	// Chain is the policy's, or the tier's whose default action it was, Unversioned.
	Chain string
	Rule  int // index in the policy; -1: the tier's default action
}

// letters are how prefixes begin.
var letters = map[Action]string{Allow: "A", Deny: "D", Log: "L"}

// Prefix returns the text with which a rule logs: up to 127 bytes.
func (l Logged) Prefix() string {
	return letters[l.Action] + " " + l.Chain + " " + comment(l.Rule)
}

// ParsePrefix returns what Prefix wrote, and false for any other text.
func ParsePrefix(text string) (l Logged, ok bool) {
	f := strings.Split(strings.TrimRight(text, " \x00"), " ")
	if len(f) != 3 {
		return l, false
	}
	for action, letter := range letters {
		if letter == f[0] {
			l.Action = action
		}
	}
	l.Chain = f[1]
	l.Rule, ok = ruleIn(f[2])
	return l, ok && l.Action != ""
}

// comment returns the comment of what a policy's rule was compiled to: the rule's
// index in the policy, or "-" for a tier's default action.
func comment(rule int) string {
	if rule < 0 {
		return "-"
	}
	return strconv.Itoa(rule)
}

// ruleIn is the reverse of comment.
func ruleIn(text string) (int, bool) {
	if text == "-" {
		return -1, true
	}
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= 0
}
