package agent

import "cairn.network/cairn/agent/reconcile"

// get returns what a tracker knows of a key.
func get[K, V comparable](t *reconcile.Tracker[K, V], k K) (V, bool) {
	v, ok := t.Known()[k]
	return v, ok
}

// anyOf says whether f is true for something that a tracker knows of.
func anyOf[K, V comparable](t *reconcile.Tracker[K, V], f func(K, V) bool) bool {
	for k, v := range t.Known() {
		if f(k, v) {
			return true
		}
	}
	return false
}
