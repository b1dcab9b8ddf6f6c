package v1

import (
	"fmt"
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// EncapMode says when packets for a pool's addresses travel in a tunnel.
//
// +kubebuilder:validation:Enum=Never;Always;CrossSubnet
type EncapMode string

// Encapsulation modes.
const (
	// EncapNever sends packets as they are.
	EncapNever EncapMode = "Never"
	// EncapAlways sends every packet between nodes through the tunnel.
	EncapAlways EncapMode = "Always"
	// EncapCrossSubnet sends packets as they are to nodes in the own node's
	// subnet, and through the tunnel to others.
	EncapCrossSubnet EncapMode = "CrossSubnet"
)

// IPPool is a range of addresses for pods.
//
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:object:root=true
type IPPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              IPPoolSpec `json:"spec"`
}

// IPPoolSpec is what the administrator wants of a pool.
type IPPoolSpec struct {
	// CIDR is the range, such as 10.244.0.0/16. It never changes.
	CIDR string `json:"cidr"`
	// BlockSize is the prefix length of the blocks that nodes claim: 20 to 32
	// (default 26), or 116 to 128 (default 122), and never less than the pool's
	// own, which is the default of a smaller pool. It never changes.
	BlockSize int `json:"blockSize,omitempty"`
	// IPIPMode says when packets travel in IPIP (IPv4 only). Default Never.
	IPIPMode EncapMode `json:"ipipMode,omitempty"`
	// VXLANMode says when packets travel in VXLAN. Default Never.
	VXLANMode EncapMode `json:"vxlanMode,omitempty"`
	// NATOutgoing masquerades what leaves all pools.
	NATOutgoing bool `json:"natOutgoing,omitempty"`
	// Disabled stops new addresses; those given stay, and stay routed.
	Disabled bool `json:"disabled,omitempty"`
	// DisableBGPExport keeps the pool's blocks from being advertised.
	DisableBGPExport bool `json:"disableBGPExport,omitempty"`
	// NodeSelector chooses the nodes that may claim blocks. Default all().
	NodeSelector string `json:"nodeSelector,omitempty"`
}

// Default sizes of blocks, as prefix lengths.
const (
	defaultBlockSize4 = 26
	defaultBlockSize6 = 122
)

// Default fills in what was left out.
func (p *IPPool) Default() {
	p.TypeMeta = typeMeta("IPPool")
	cidr := p.Prefix()
	if p.Spec.BlockSize == 0 && cidr.IsValid() {
		size := defaultBlockSize4
		if cidr.Addr().Is6() {
			size = defaultBlockSize6
		}
		p.Spec.BlockSize = max(size, cidr.Bits())
	}
	if p.Spec.IPIPMode == "" {
		p.Spec.IPIPMode = EncapNever
	}
	if p.Spec.VXLANMode == "" {
		p.Spec.VXLANMode = EncapNever
	}
	if p.Spec.NodeSelector == "" {
		p.Spec.NodeSelector = "all()"
	}
}

// Prefix returns the pool's range; the zero Prefix if it is invalid.
func (p *IPPool) Prefix() netip.Prefix {
	cidr, errs := validCIDR(nil, p.Spec.CIDR)
	if len(errs) > 0 {
		return netip.Prefix{}
	}
	return cidr
}

// Validate returns every reason to refuse the defaulted pool. Whether it overlaps
// another is ValidatePools' to say.
func (p *IPPool) Validate() field.ErrorList {
	errs := validMeta(&p.ObjectMeta, false)
	cidr, cidrErrs := validCIDR(path("cidr"), p.Spec.CIDR)
	errs = append(errs, cidrErrs...)
	if cidr.IsValid() {
		if use := special(cidr); use != "" {
			errs = append(errs, field.Invalid(path("cidr"), p.Spec.CIDR, "must not contain "+use))
		}
		errs = append(errs, validBlockSize(path("blockSize"), p.Spec.BlockSize, cidr)...)
	}
	modes := []EncapMode{EncapNever, EncapAlways, EncapCrossSubnet}
	errs = append(errs, validEnum(path("ipipMode"), p.Spec.IPIPMode, modes...)...)
	errs = append(errs, validEnum(path("vxlanMode"), p.Spec.VXLANMode, modes...)...)
	if p.Spec.IPIPMode != EncapNever {
		if cidr.IsValid() && cidr.Addr().Is6() {
			errs = append(errs, field.Invalid(path("ipipMode"), p.Spec.IPIPMode, "must be Never: IPIP carries IPv4 only"))
		}
		if p.Spec.VXLANMode != EncapNever {
			errs = append(errs, field.Invalid(path("vxlanMode"), p.Spec.VXLANMode, "must be Never where ipipMode isn't: a packet travels in one tunnel"))
		}
	}
	return append(errs, validSelector(path("nodeSelector"), p.Spec.NodeSelector)...)
}

// validBlockSize checks the prefix length of a pool's blocks.
func validBlockSize(at *field.Path, size int, pool netip.Prefix) field.ErrorList {
	least, most := 20, 32
	if pool.Addr().Is6() {
		least, most = 116, 128
	}
	switch {
	case size < least || size > most:
		return field.ErrorList{field.Invalid(at, size, fmt.Sprintf("must be %d to %d", least, most))}
	case size < pool.Bits():
		return field.ErrorList{field.Invalid(at, size, fmt.Sprintf("must not be less than the pool's prefix length, %d", pool.Bits()))}
	}
	return nil
}

func (p *IPPool) validateUpdate(old *IPPool) field.ErrorList {
	var errs field.ErrorList
	const why = "never changes, for addresses were given from it; delete the pool and make another"
	if p.Spec.CIDR != old.Spec.CIDR && (p.Prefix() != old.Prefix() || !p.Prefix().IsValid()) {
		errs = append(errs, field.Invalid(path("cidr"), p.Spec.CIDR, fmt.Sprintf("is %s and %s", old.Spec.CIDR, why)))
	}
	if p.Spec.BlockSize != old.Spec.BlockSize {
		errs = append(errs, field.Invalid(path("blockSize"), p.Spec.BlockSize, fmt.Sprintf("is %d and %s", old.Spec.BlockSize, why)))
	}
	return errs
}

// ValidatePools returns a reason to refuse the pool for each other pool that
// shares addresses with it. The pool itself, by its name, may be among others.
func ValidatePools(pool *IPPool, others []*IPPool) field.ErrorList {
	var errs field.ErrorList
	for _, o := range others {
		if o.Name != pool.Name && o.Prefix().Overlaps(pool.Prefix()) {
			errs = append(errs, field.Invalid(path("cidr"), pool.Spec.CIDR, fmt.Sprintf("overlaps IPPool %s (%s)", o.Name, o.Spec.CIDR)))
		}
	}
	return errs
}
