package lab

import (
	"maps"
	"slices"
	"strings"
)

// labelText returns labels as k=v, ordered, joined by commas.
func labelText(labels map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k+"="+labels[k])
	}
	return strings.Join(parts, ",")
}
