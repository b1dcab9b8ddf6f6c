package topology

import (
	"embed"
	"fmt"
	"slices"
	"strings"
)

// Plain is the name of the topology that a lab has if none is given.
const Plain = "plain"

//go:embed named/*.yaml
var named embed.FS

// Names returns the names of the topologies that come with the lab, in order.
func Names() []string {
	entries, err := named.ReadDir("named")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	slices.Sort(names) // which differs from the order of the files' names
	return names
}

// Named returns the topology file of that name.
func Named(name string) ([]byte, error) {
	b, err := named.ReadFile("named/" + name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("there is no topology %q; there are %s", name, strings.Join(Names(), ", "))
	}
	return b, nil
}

// Summary returns what a topology file says of itself: the comment at its top,
// on one line.
func Summary(file []byte) string {
	var parts []string
	for line := range strings.Lines(string(file)) {
		text, ok := strings.CutPrefix(line, "# ")
		if !ok {
			break
		}
		parts = append(parts, strings.TrimSpace(text))
	}
	return strings.Join(parts, " ")
}
