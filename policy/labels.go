package policy

import (
	"cmp"
	"strings"

	"cairn.network/cairn/selector"
)

// Labels that selectors see besides an endpoint's own, named as in Calico.
const (
	// LabelNamespace is the namespace of a pod or NetworkSet; what is in none lacks it.
	LabelNamespace = "projectcalico.org/namespace"
	// LabelOrchestrator is "k8s" of every pod, and of nothing else.
	LabelOrchestrator = "projectcalico.org/orchestrator"
	// LabelServiceAccount is the name of a pod's service account.
	LabelServiceAccount = "projectcalico.org/serviceaccount"
	// NamespacePrefix comes before the labels of the endpoint's namespace,
	// AccountPrefix before those of its service account.
	NamespacePrefix = "pcns."
	AccountPrefix   = "pcsa."
	// LabelName and LabelMetadataName are labels that every namespace and service
	// account has: its name.
	LabelName         = "projectcalico.org/name"
	LabelMetadataName = "kubernetes.io/metadata.name"
)

// orchestrator is the value of LabelOrchestrator.
const orchestrator = "k8s"

// EffectiveLabels is what selectors see of an endpoint.
type EffectiveLabels struct {
	Endpoint *Endpoint
	// Namespace and Account are the labels of the endpoint's namespace and service
	// account.
	Namespace, Account map[string]string
}

var _ selector.Labels = EffectiveLabels{}

// Get returns a label's value, and whether there is such a label.
func (l EffectiveLabels) Get(label string) (string, bool) {
	e := l.Endpoint
	switch label {
	case LabelNamespace:
		return e.Namespace, e.Namespace != ""
	case LabelOrchestrator:
		return orchestrator, e.Kind == KindPod
	case LabelServiceAccount:
		return e.ServiceAccount, e.ServiceAccount != ""
	}
	if inner, ok := strings.CutPrefix(label, NamespacePrefix); ok && e.Namespace != "" {
		return inherited(l.Namespace, e.Namespace, inner)
	}
	if inner, ok := strings.CutPrefix(label, AccountPrefix); ok && e.ServiceAccount != "" {
		return inherited(l.Account, e.ServiceAccount, inner)
	}
	v, ok := e.Labels[label]
	return v, ok
}

// inherited returns a label of a namespace or service account.
func inherited(labels map[string]string, name, label string) (string, bool) {
	if label == LabelName || label == LabelMetadataName {
		return name, true
	}
	v, ok := labels[label]
	return v, ok
}

// labelsOf returns what selectors see of an endpoint in this world.
func (w *World) labelsOf(e *Endpoint) EffectiveLabels {
	return EffectiveLabels{e, w.Namespaces[e.Namespace], w.ServiceAccounts[ID{Namespace: e.Namespace, Name: e.ServiceAccount}]}
}

// Compare orders by kind, namespace, name.
func (id ID) Compare(o ID) int {
	return cmp.Or(strings.Compare(id.Kind, o.Kind), strings.Compare(id.Namespace, o.Namespace), strings.Compare(id.Name, o.Name))
}
