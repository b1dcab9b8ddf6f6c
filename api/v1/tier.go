package v1

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Tier is a group of policies. Tiers are asked in their order, and in each the
// policies in theirs.
//
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:object:root=true
type Tier struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              TierSpec `json:"spec,omitzero"`
}

// TierSpec is where a tier stands and how it ends.
type TierSpec struct {
	// Order is the tier's place, the least first; equal ones go by name. Default last.
	Order *float64 `json:"order,omitempty"`
	// DefaultAction is what becomes of a packet that policies of the tier are about and
	// none of them decided: Deny (default) or Pass, to the next tier.
	DefaultAction PolicyAction `json:"defaultAction,omitempty"`
}

// Tiers that exist without a resource.
const (
	// TierAdmin and TierBaseline are those of ClusterNetworkPolicy, before and behind
	// the tier DefaultTier.
	TierAdmin    = "kube-admin"
	TierBaseline = "kube-baseline"
)

// BuiltinTiers returns the tiers that exist without a resource, in their order,
// defaulted.
func BuiltinTiers() []*Tier {
	tier := func(name string, order float64, action PolicyAction) *Tier {
		return &Tier{TypeMeta: typeMeta("Tier"), ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: TierSpec{Order: &order, DefaultAction: action}}
	}
	return []*Tier{
		tier(TierAdmin, 1000, ActionPass), tier(DefaultTier, 1_000_000, ActionDeny), tier(TierBaseline, 10_000_000, ActionPass),
	}
}

// IsBuiltinTier says whether the tier of this name exists without a resource.
func IsBuiltinTier(name string) bool { return builtinTier(name) != nil }

// builtinTier returns the tier of this name that exists without a resource; nil if
// there is none.
func builtinTier(name string) *Tier {
	for _, t := range BuiltinTiers() {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// Default fills in what was left out.
func (t *Tier) Default() {
	t.TypeMeta = typeMeta("Tier")
	if b := builtinTier(t.Name); b != nil {
		if t.Spec.Order == nil {
			t.Spec.Order = b.Spec.Order
		}
		if t.Spec.DefaultAction == "" {
			t.Spec.DefaultAction = b.Spec.DefaultAction
		}
	}
	if t.Spec.DefaultAction == "" {
		t.Spec.DefaultAction = ActionDeny
	}
}

// Validate returns every reason to refuse the defaulted tier.
func (t *Tier) Validate() field.ErrorList {
	errs := validMeta(&t.ObjectMeta, false)
	errs = append(errs, validOrder(path("order"), t.Spec.Order)...)
	errs = append(errs, validEnum(path("defaultAction"), t.Spec.DefaultAction, ActionDeny, ActionPass)...)
	if b := builtinTier(t.Name); b != nil {
		const why = "policies of Kubernetes rely on it"
		if t.Spec.Order == nil || *t.Spec.Order != *b.Spec.Order {
			errs = append(errs, field.Invalid(path("order"), t.Spec.Order, fmt.Sprintf("of tier %s it is %.0f: %s", t.Name, *b.Spec.Order, why)))
		}
		if t.Spec.DefaultAction != b.Spec.DefaultAction {
			errs = append(errs, field.Invalid(path("defaultAction"), t.Spec.DefaultAction, fmt.Sprintf("of tier %s it is %s: %s", t.Name, b.Spec.DefaultAction, why)))
		}
	}
	return errs
}

// PolicyTier returns the tier of a defaulted policy of Cairn's kinds, and false of
// other objects.
func PolicyTier(o Object) (string, bool) {
	switch p := o.(type) {
	case *NetworkPolicy:
		return p.Spec.Tier, true
	case *GlobalNetworkPolicy:
		return p.Spec.Tier, true
	case *StagedNetworkPolicy:
		return p.Spec.Tier, true
	case *StagedGlobalNetworkPolicy:
		return p.Spec.Tier, true
	}
	return "", false
}

// ValidateTier returns the reason to refuse a policy whose tier is none of those that
// there are: the built-in ones and these.
func ValidateTier(policy Object, tiers map[string]bool) field.ErrorList {
	name, ok := PolicyTier(policy)
	if !ok || tiers[name] || IsBuiltinTier(name) {
		return nil
	}
	return field.ErrorList{field.NotFound(path("tier"), name)}
}
