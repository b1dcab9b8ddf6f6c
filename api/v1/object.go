package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Group and Version name this API; APIVersion is both as objects carry them.
const (
	Group      = "cairn.network"
	Version    = "v1"
	APIVersion = Group + "/" + Version
)

// GroupVersion is the API's name as Kubernetes' libraries want it.
var GroupVersion = schema.GroupVersion{Group: Group, Version: Version}

// Object is any of Cairn's resources.
//
// +kubebuilder:object:generate=false
type Object interface {
	metav1.Object
	runtime.Object
	// Default fills in what was left out. It is idempotent.
	Default()
	// Validate returns every reason to refuse the defaulted object, each with the
	// field's path.
	Validate() field.ErrorList
}

// typeMeta returns what every object of the kind carries.
func typeMeta(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: APIVersion, Kind: kind}
}
