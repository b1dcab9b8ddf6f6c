package policy

import (
	"cairn.network/cairn/kernel"
)

// codeKey names the rules that a policy is compiled to. Those before connection
// tracking allow in another way.
type codeKey struct {
	policy    ID
	direction Direction
	untracked bool
}

// code is a policy's rules of one direction as the kernel gets them. It is there
// while a list asks for it.
type code struct {
	key    codeKey
	policy *Policy
	name   string // of its chain, Unversioned
	chain  string // "": not compiled yet
	rules  []kernel.Rule
	// inline says that the rules stand in the lists themselves: what passes leaves two
	// chains at once, which no rule can say of a chain that it was called from.
	inline  bool
	refs    int
	lookups map[string]lookup
	watched watched // what in the sets the rules depend on
}

// allowUntracked is the chain to which rules before connection tracking go that
// allow.
const allowUntracked = "host/untracked"

// code returns a policy's rules, with one more asking for them.
func (c *Compiler) code(p *Policy, d Direction, untracked bool) *code {
	k := codeKey{p.ID, d, untracked}
	it := c.codes[k]
	if it == nil {
		it = &code{key: k, policy: p, name: chainOf(p, d)}
		if untracked {
			it.name = untrackedPrefix + "/" + it.name
			c.untracked++
		}
		c.codes[k] = it
		c.recode(it)
	} else if it.policy != p {
		it.policy = p
		c.recode(it)
	}
	it.refs++
	return it
}

// release takes back that somebody asks for the rules.
func (c *Compiler) release(it *code) {
	if it.refs--; it.refs > 0 {
		return
	}
	delete(c.codes, it.key)
	if it.key.untracked {
		c.untracked--
	}
	delete(c.dirtyCodes, it)
	c.chains.Delete(it.chain)
	c.active.Delete(it.name)
	for name := range it.lookups {
		c.sets.unneed(name)
	}
	was := it.watched
	it.watched = watched{}
	c.sets.unwatch(it, was)
}

// recode compiles a policy's rules.
func (c *Compiler) recode(it *code) {
	rc := c.sets.compiler()
	var rules []kernel.Rule
	inline := false
	for i, r := range it.policy.Rules[it.key.direction] {
		inline = inline || r.Action == Pass
		for _, k := range rc.rule(r) {
			rules = append(rules, c.act(k, r.Action, Logged{r.Action, it.name, i}, it.key.untracked))
		}
	}
	if it.policy.Fault != "" {
		rules = []kernel.Rule{c.act(kernel.Rule{}, Deny, Logged{Deny, it.name, -1}, it.key.untracked)}
	}
	if inline { // where one policy's rules end the next one's begin
		for i := range rules {
			rules[i].Comment = it.name + " " + rules[i].Comment
		}
	}
	was := it.lookups
	it.lookups = map[string]lookup{}
	for _, r := range rules {
		for _, asked := range r.Asks() {
			it.lookups[asked.Name] = rc.asked[asked.Name]
		}
	}
	for _, l := range it.lookups {
		c.sets.need(l)
	}
	for name := range was {
		c.sets.unneed(name)
	}
	c.sets.rewatch(it, rc)
	c.active.Set(it.name, it.policy)
	text := kernel.RulesOf(rules...)
	chain := versioned(it.name, text.Identity())
	if chain == it.chain && inline == it.inline {
		return
	}
	if it.chain != "" {
		c.chains.Delete(it.chain)
		c.concerned(it.policy) // their lists lead to the old one
	}
	it.rules, it.inline, it.chain = rules, inline, chain
	if !inline {
		c.chains.Set(chain, kernel.Chain{Rules: text})
	}
}

// act returns the rule that does with what k matches what an action says.
func (c *Compiler) act(k kernel.Rule, a Action, l Logged, untracked bool) kernel.Rule {
	k.Counter, k.Comment = true, comment(l.Rule)
	switch a {
	case Allow:
		k.Verdict = kernel.Accept
		if untracked {
			k.Verdict, k.Target = kernel.Goto, allowUntracked
			break // every packet would be logged, not the first of a connection
		}
		k.Log = &kernel.Log{Group: GroupAllowed, Prefix: l.Prefix()}
	case Deny:
		k.Verdict = kernel.Drop
		k.Log = &kernel.Log{Group: GroupDenied, Prefix: l.Prefix()}
	case Pass:
		k.Verdict = kernel.Return
	case Log:
		k.Verdict = kernel.Continue
		k.Log = &kernel.Log{Group: GroupLogged, Prefix: l.Prefix()}
		if c.settings.LogRate > 0 {
			k.Limit = &kernel.Limit{Rate: c.settings.LogRate, Burst: c.settings.LogBurst}
		}
	}
	return k
}
