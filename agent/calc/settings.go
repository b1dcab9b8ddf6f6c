package calc

import (
	"time"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// settings is what the cluster's BGPConfiguration says.
type settings struct {
	mesh        bool
	as          uint32
	port        uint16
	restartTime time.Duration
	source      v1.ClusterRoutes
	issues      []v1.Issue
}

// newSettings returns what the configuration named default says. An invalid one
// counts as left out: the defaults hold.
func newSettings(s *datastore.Snapshot) *settings {
	var c v1.BGPConfiguration
	c.Default()
	var issues []v1.Issue
	for _, o := range datastore.Sorted[*v1.BGPConfiguration](s) {
		full, found := check(o, "the object is ignored")
		if len(found) == 0 && o.Name == v1.DefaultName {
			c = *full
		}
		issues = append(issues, found...)
	}
	return &settings{
		mesh:        *c.Spec.NodeToNodeMeshEnabled,
		as:          *c.Spec.ASNumber,
		port:        uint16(c.Spec.ListenPort),
		restartTime: c.Spec.NodeMeshMaxRestartTime.Duration,
		source:      c.Spec.ClusterRoutes,
		issues:      issues,
	}
}

// nodeAS returns a node's autonomous system.
func (c *settings) nodeAS(m *member) uint32 {
	if m.as != 0 {
		return m.as
	}
	return c.as
}
