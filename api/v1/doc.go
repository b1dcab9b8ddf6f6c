// Package v1 holds Cairn's resources (group cairn.network, version v1) in the
// shape of Kubernetes objects, their defaults, their validation and their strict
// decoding.
//
// It guarantees that what passed Decode and Validate needs no further checks:
// addresses and prefixes parse, selectors compile, values are in range. Names and
// meanings follow Calico's v3 resources where they mean the same.
//
// +kubebuilder:object:generate=true
// +groupName=cairn.network
package v1

//go:generate go run sigs.k8s.io/controller-tools/cmd/controller-gen@v0.23.0 object paths=.
