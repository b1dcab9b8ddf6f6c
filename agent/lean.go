package agent

import (
	"hash/maphash"
	"maps"

	v1 "cairn.network/cairn/api/v1"
)

// lean keeps of the WorkloadEndpoints, of which a node may see very many, what it needs,
// and once what many have alike: the pods of a Deployment have the same labels. It is
// for one goroutine.
type lean struct {
	node   string // whose endpoints are kept whole
	seed   maphash.Seed
	texts  map[string]string
	labels map[uint64]map[string]string // by a hash of them
}

// leanMost bounds what is remembered. What comes when there is more begins anew: it has
// nothing in common with what was before, and is right all the same.
const leanMost = 1 << 16

func newLean(node string) *lean {
	return &lean{node: node, seed: maphash.MakeSeed(), texts: map[string]string{}, labels: map[uint64]map[string]string{}}
}

// endpoint returns what is kept of a WorkloadEndpoint, see datastore.Mirror.Transform.
func (l *lean) endpoint(o v1.Object) v1.Object {
	full, ok := o.(*v1.WorkloadEndpoint)
	if !ok {
		return o
	}
	w := &v1.WorkloadEndpoint{TypeMeta: typeMeta("WorkloadEndpoint"), Spec: full.Spec}
	w.Name, w.Namespace, w.UID, w.ResourceVersion = full.Name, l.text(full.Namespace), full.UID, full.ResourceVersion
	w.Labels = l.same(full.Labels)
	if sources, ok := full.Annotations[v1.AnnotationAllowedSourcePrefixes]; ok {
		w.Annotations = map[string]string{v1.AnnotationAllowedSourcePrefixes: sources}
	}
	s := &w.Spec
	s.Node, s.Endpoint, s.ServiceAccountName = l.text(s.Node), l.text(s.Endpoint), l.text(s.ServiceAccountName)
	if s.Node != l.node {
		s.ContainerID, s.InterfaceName = "", "" // they mean something there only
	}
	return w
}

// text returns the same text, kept once.
func (l *lean) text(s string) string {
	if one, ok := l.texts[s]; ok {
		return one
	}
	if len(l.texts) >= leanMost {
		clear(l.texts)
	}
	l.texts[s] = s
	return s
}

// same returns the same labels, kept once.
func (l *lean) same(labels map[string]string) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	var h uint64
	for k, v := range labels {
		h += maphash.Comparable(l.seed, [2]string{k, v})
	}
	if one, ok := l.labels[h]; ok && maps.Equal(one, labels) {
		return one
	}
	if len(l.labels) >= leanMost {
		clear(l.labels)
	}
	one := make(map[string]string, len(labels))
	for k, v := range labels {
		one[l.text(k)] = l.text(v)
	}
	l.labels[h] = one
	return one
}
