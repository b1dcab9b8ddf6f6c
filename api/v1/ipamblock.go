package v1

import (
	"fmt"
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// BlockState is the state of a node's claim to a block.
//
// +kubebuilder:validation:Enum=Pending;Confirmed;Releasing
type BlockState string

// Block states. Only confirmed blocks are advertised, routed or black-holed.
const (
	BlockPending   BlockState = "Pending"
	BlockConfirmed BlockState = "Confirmed"
	BlockReleasing BlockState = "Releasing"
)

// IPAMBlock is a piece of a pool claimed by a node, and the truth of who has
// which of its addresses. Its name is BlockName of its CIDR.
//
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:object:root=true
type IPAMBlock struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              IPAMBlockSpec `json:"spec"`
}

// IPAMBlockSpec is the content of a block.
type IPAMBlockSpec struct {
	// CIDR is the block's range.
	CIDR string `json:"cidr"`
	// Pool is the name of the pool that the block was cut from.
	Pool string `json:"pool"`
	// Node is the name of the node that claimed the block.
	Node string `json:"node"`
	// State is the state of the claim.
	State BlockState `json:"state"`
	// Allocations are the addresses that nodes hold, in the order of addresses.
	Allocations []Allocation `json:"allocations,omitempty"`
	// Released are the addresses that were held and are free again, first freed
	// first. Those never held come before them.
	Released []Release `json:"released,omitempty"`
}

// Allocation is an address that a node holds: no other node may use it.
type Allocation struct {
	// Address is the address.
	Address string `json:"address"`
	// Node holds the address: the block's node, or one that borrows it.
	Node string `json:"node"`
	// Owner uses the address. Left out while it is only in the node's reserve.
	Owner *AllocationOwner `json:"owner,omitempty"`
}

// AllocationOwner says what uses an address.
type AllocationOwner struct {
	// ContainerID is the sandbox's ID as the container runtime gave it.
	ContainerID string `json:"containerID"`
	// Interface is the name inside the pod.
	Interface string `json:"interface"`
	// Namespace is the pod's namespace.
	Namespace string `json:"namespace,omitempty"`
	// Pod is the pod's name.
	Pod string `json:"pod,omitempty"`
}

// Release is an address that is free again.
type Release struct {
	// Address is the address.
	Address string `json:"address"`
	// At is when it was freed: it rests for the cool-down before it is used again.
	At metav1.Time `json:"at"`
}

// Default fills in what was left out.
func (b *IPAMBlock) Default() { b.TypeMeta = typeMeta("IPAMBlock") }

// Prefix returns the block's range; the zero Prefix if it is invalid.
func (b *IPAMBlock) Prefix() netip.Prefix {
	cidr, errs := validCIDR(nil, b.Spec.CIDR)
	if len(errs) > 0 {
		return netip.Prefix{}
	}
	return cidr
}

// Validate returns every reason to refuse the defaulted block.
func (b *IPAMBlock) Validate() field.ErrorList {
	errs := validMeta(&b.ObjectMeta, false)
	cidr, cidrErrs := validCIDR(path("cidr"), b.Spec.CIDR)
	errs = append(errs, cidrErrs...)
	if cidr.IsValid() {
		if sizeErrs := validBlockSize(nil, cidr.Bits(), cidr); len(sizeErrs) > 0 {
			errs = append(errs, field.Invalid(path("cidr"), b.Spec.CIDR, "prefix length "+sizeErrs[0].Detail))
		}
		if name := BlockName(cidr); b.Name != name {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), b.Name, "must be "+name+", after spec.cidr"))
		}
	}
	errs = append(errs, validName(path("pool"), b.Spec.Pool)...)
	errs = append(errs, validName(path("node"), b.Spec.Node)...)
	errs = append(errs, validEnum(path("state"), b.Spec.State, BlockPending, BlockConfirmed, BlockReleasing)...)
	held, allocErrs := b.validAllocations(cidr)
	errs = append(errs, allocErrs...)
	for i, r := range b.Spec.Released {
		at := path("released").Index(i)
		addr, addrErrs := validAddressIn(at.Child("address"), r.Address, cidr)
		errs = append(errs, addrErrs...)
		if addr.IsValid() && held[addr] {
			errs = append(errs, field.Duplicate(at.Child("address"), r.Address))
		}
		held[addr] = true
		if r.At.IsZero() {
			errs = append(errs, field.Required(at.Child("at"), ""))
		}
	}
	return errs
}

// validAllocations checks the allocations and returns their addresses.
func (b *IPAMBlock) validAllocations(cidr netip.Prefix) (map[netip.Addr]bool, field.ErrorList) {
	var errs field.ErrorList
	var last netip.Addr
	held := map[netip.Addr]bool{}
	for i, a := range b.Spec.Allocations {
		at := path("allocations").Index(i)
		addr, addrErrs := validAddressIn(at.Child("address"), a.Address, cidr)
		errs = append(errs, addrErrs...)
		if addr.IsValid() {
			if addr.Compare(last) <= 0 {
				errs = append(errs, field.Invalid(at.Child("address"), a.Address, fmt.Sprintf("must come before %s: addresses are in order, each once", last)))
			}
			held[addr], last = true, addr
		}
		errs = append(errs, validName(at.Child("node"), a.Node)...)
		if a.Owner != nil {
			errs = append(errs, validText(at.Child("owner", "containerID"), a.Owner.ContainerID)...)
			errs = append(errs, validText(at.Child("owner", "interface"), a.Owner.Interface)...)
		}
	}
	return held, errs
}

// validAddressIn parses an address that must lie in a block, if that is valid.
func validAddressIn(at *field.Path, text string, block netip.Prefix) (netip.Addr, field.ErrorList) {
	addr, errs := validAddress(at, text)
	if len(errs) == 0 && block.IsValid() && !block.Contains(addr) {
		errs = field.ErrorList{field.Invalid(at, text, fmt.Sprintf("must be in the block, %s", block))}
	}
	return addr, errs
}

func (b *IPAMBlock) validateUpdate(old *IPAMBlock) field.ErrorList {
	if b.Prefix() != old.Prefix() {
		return field.ErrorList{field.Invalid(path("cidr"), b.Spec.CIDR, "never changes, was "+old.Spec.CIDR)}
	}
	return nil
}
