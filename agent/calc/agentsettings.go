package calc

import (
	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// agentSettings is what the AgentConfigurations say of the own node.
type agentSettings struct {
	v1.AgentSettings
	wireGuardBy string // the object that says whether WireGuard is enabled
	issues      []v1.Issue
}

// newAgentSettings returns the settings of a node. An invalid object counts as
// left out: what the other says holds, or the defaults.
func newAgentSettings(s *datastore.Snapshot, node string) *agentSettings {
	a := &agentSettings{}
	valid := func(name string) *v1.AgentConfiguration {
		o, ok := datastore.Get[*v1.AgentConfiguration](s, "", name)
		if !ok {
			return nil
		}
		full, issues := check(o, "the object is ignored")
		if a.issues = append(a.issues, issues...); len(issues) > 0 {
			return nil
		}
		if full.Spec.WireGuardEnabled != nil {
			a.wireGuardBy = objectName(full)
		}
		return full
	}
	cluster := valid(v1.DefaultName)
	a.AgentSettings = v1.Effective(cluster, valid(v1.NodeConfigurationPrefix+node))
	return a
}
