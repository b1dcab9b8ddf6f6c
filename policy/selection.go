package policy

import (
	"strings"

	"cairn.network/cairn/selector"
)

// Selection knows which endpoints each registered selector chooses by their
// EffectiveLabels, and tells what changes of that. T stands for an endpoint, such as
// its ID. It is for one goroutine; see selector.Index for the rest.
type Selection[T comparable] struct {
	*selector.Index[T]
}

// NewSelection returns a selection of no endpoints. It calls changed as
// selector.NewIndex says.
func NewSelection[T comparable](changed func(s *selector.Selector, t T, in bool)) Selection[T] {
	return Selection[T]{selector.NewIndex(changed)}
}

// Set puts an endpoint in, or in the place of what it was before.
func (s Selection[T]) Set(t T, e *Endpoint) {
	var parents []string
	if e.Namespace != "" {
		parents = append(parents, namespaceParent(e.Namespace))
	}
	if e.ServiceAccount != "" {
		parents = append(parents, accountParent(ID{Namespace: e.Namespace, Name: e.ServiceAccount}))
	}
	s.Index.Set(t, ownLabels(e), parents...)
}

// SetNamespace says what labels a namespace has; nil: it is gone. Endpoints in a
// namespace that was never told of see its name only.
func (s Selection[T]) SetNamespace(name string, labels map[string]string) {
	s.SetParent(namespaceParent(name), withPrefix(NamespacePrefix, labels))
}

// SetServiceAccount says what labels a service account has, likewise. Its ID is
// without kind.
func (s Selection[T]) SetServiceAccount(id ID, labels map[string]string) {
	s.SetParent(accountParent(id), withPrefix(AccountPrefix, labels))
}

func namespaceParent(name string) string { return NamespacePrefix + name }

func accountParent(id ID) string { return AccountPrefix + id.Namespace + "/" + id.Name }

// ownLabels returns what selectors see of an endpoint but the labels that others can
// change. It hides an endpoint's own labels that are named like these.
func ownLabels(e *Endpoint) selector.Map {
	own := make(selector.Map, len(e.Labels)+7)
	for l, v := range e.Labels {
		switch {
		case l == LabelNamespace, l == LabelOrchestrator, l == LabelServiceAccount:
		case e.Namespace != "" && strings.HasPrefix(l, NamespacePrefix):
		case e.ServiceAccount != "" && strings.HasPrefix(l, AccountPrefix):
		default:
			own[l] = v
		}
	}
	if e.Kind == KindPod {
		own[LabelOrchestrator] = orchestrator
	}
	if e.Namespace != "" {
		own[LabelNamespace] = e.Namespace
		withName(own, NamespacePrefix, e.Namespace)
	}
	if e.ServiceAccount != "" {
		own[LabelServiceAccount] = e.ServiceAccount
		withName(own, AccountPrefix, e.ServiceAccount)
	}
	return own
}

// withName sets the labels that a namespace or service account has by its name.
func withName(own selector.Map, prefix, name string) {
	own[prefix+LabelName] = name
	own[prefix+LabelMetadataName] = name
}

func withPrefix(prefix string, labels map[string]string) selector.Map {
	if labels == nil {
		return nil
	}
	all := make(selector.Map, len(labels))
	for l, v := range labels {
		all[prefix+l] = v
	}
	return all
}
