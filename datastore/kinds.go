package datastore

import v1 "cairn.network/cairn/api/v1"

// newObject returns an empty object of the kind.
func newObject(kind string) (v1.Object, bool) {
	var o any
	switch kind {
	case "IPPool":
		o = &v1.IPPool{}
	case "IPAMBlock":
		o = &v1.IPAMBlock{}
	case "Node":
		o = &v1.Node{}
	case "NodeStatus":
		o = &v1.NodeStatus{}
	case "WorkloadEndpoint":
		o = &v1.WorkloadEndpoint{}
	case "BGPConfiguration":
		o = &v1.BGPConfiguration{}
	case "BGPPeer":
		o = &v1.BGPPeer{}
	}
	t, ok := o.(v1.Object)
	return t, ok
}
