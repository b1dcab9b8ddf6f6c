package policy

import "fmt"

// Kept says what the compiler keeps of what it was told and made; "" if nothing.
func (c *Compiler) Kept() string {
	have := map[string]int{
		"policies": len(c.policies), "selectors": len(c.bySelect), "locals": len(c.locals), "entries": len(c.entries),
		"sources": len(c.sources), "codes": len(c.codes), "untracked codes": c.untracked, "lists": len(c.lists),
		"sets":    len(c.sets.needs) - 2 - len(podMaps), // of sources, and the verdict maps that there always are
		"choices": len(c.sets.choices), "services": len(c.sets.services), "uses of services": len(c.sets.uses),
		"members": len(c.sets.members.known), "watches": len(c.sets.members.watches),
		"nodes": len(c.sets.nodes.known), "watches of nodes": len(c.sets.nodes.watches),
	}
	text := ""
	for what, n := range have {
		if n != 0 {
			text += fmt.Sprintf("%d %s\n", n, what)
		}
	}
	return text
}
