package kernel

import "context"

// RuleCount is what a rule with Counter has counted since it was written: to replace
// a chain begins anew.
type RuleCount struct {
	Comment        string
	Packets, Bytes uint64
}

// Counters is the seam to what the rules of nftables have counted.
type Counters interface {
	// RuleCounters returns for each chain in Cairn's table what its rules with Counter
	// have counted, in their order. Chains without such rules are left out.
	RuleCounters(ctx context.Context) (map[string][]RuleCount, error)
}
