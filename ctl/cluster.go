package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/config"
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/policy"
)

// worldKinds are the kinds on which verdicts depend.
var worldKinds = []string{
	"AgentConfiguration", "Node", "Namespace", "ServiceAccount", "EndpointSlice", "Tier", "NetworkSet", "GlobalNetworkSet",
	"NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy",
	"KubernetesNetworkPolicy", "ClusterNetworkPolicy", "HostEndpoint", "WorkloadEndpoint",
}

// cluster is the resources on which verdicts depend, and what they make.
type cluster struct {
	objects []v1.Object
	world   *policy.World
	issues  []v1.Issue
	pods    []*v1.WorkloadEndpoint // in order
	agents  map[string]*v1.AgentConfiguration
}

func newCluster(objects []v1.Object) *cluster {
	c := &cluster{objects: objects, agents: map[string]*v1.AgentConfiguration{}}
	for _, o := range objects {
		switch o := o.(type) {
		case *v1.AgentConfiguration:
			c.agents[o.Name] = o
		case *v1.WorkloadEndpoint:
			c.pods = append(c.pods, o)
		}
	}
	slices.SortFunc(c.pods, func(a, b *v1.WorkloadEndpoint) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(podName(a), podName(b)), cmp.Compare(a.Name, b.Name))
	})
	world, issues := policy.NewWorld(objects...)
	s := c.settings("")
	world.FailSafe = [2][]policy.FailSafe{
		policy.Ingress: policy.FromFailsafePorts(s.FailsafeInbound), policy.Egress: policy.FromFailsafePorts(s.FailsafeOutbound),
	}
	c.world, c.issues = world.Remembering(), issues
	return c
}

// podName returns the name of the pod that an endpoint is of.
func podName(w *v1.WorkloadEndpoint) string { return cmp.Or(w.Spec.Pod, w.Name) }

// settings returns what the agent of a node is told; "": what all are.
func (c *cluster) settings(node string) v1.AgentSettings {
	var own *v1.AgentConfiguration
	if node != "" {
		own = c.agents[v1.NodeConfigurationPrefix+node]
	}
	return v1.Effective(c.agents[v1.DefaultName], own)
}

// with returns the cluster as it is with some objects applied and others gone.
func (c *cluster) with(applied []document, gone []datastore.Key) *cluster {
	byKey := map[datastore.Key]v1.Object{}
	for _, d := range applied {
		byKey[d.key()] = d.Object
	}
	var all []v1.Object
	for _, o := range c.objects {
		key := datastore.KeyOf(o)
		if _, replaced := byKey[key]; !replaced && !slices.Contains(gone, key) {
			all = append(all, o)
		}
	}
	for _, d := range applied {
		if !slices.Contains(gone, d.key()) {
			all = append(all, d.Object)
		}
	}
	return newCluster(all)
}

// source says from where a cluster is read: the datastore, or files if there are any.
type source struct {
	files     []string
	recursive bool
}

func (s *source) addFlags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringSliceVarP(&s.files, "filename", "f", nil, "read all resources from these files and folders (- for standard input), not from the datastore")
	fs.BoolVarP(&s.recursive, "recursive", "R", false, "read the folders in folders too")
	config.CallOnly(fs, "filename", "recursive")
}

// cluster reads the cluster, and warns of what is wrong in it.
func (e *env) cluster(ctx context.Context, s *source) (*cluster, error) {
	var objects []v1.Object
	if len(s.files) > 0 {
		docs, err := e.documents(s.files, s.recursive)
		if err != nil {
			return nil, err
		}
		for _, d := range docs {
			objects = append(objects, d.Object)
		}
	} else {
		store, err := e.open()
		if err != nil {
			return nil, err
		}
		for _, kind := range worldKinds {
			some, err := e.list(ctx, store, kind)
			if err != nil {
				return nil, err
			}
			objects = append(objects, some...)
		}
	}
	c := newCluster(objects)
	e.warn(c.issues)
	return c, nil
}

// documents reads objects and checks them as apply does.
func (e *env) documents(files []string, recursive bool) ([]document, error) {
	docs, err := readDocuments(files, recursive, e.In)
	if err != nil {
		return nil, err
	}
	for _, d := range docs {
		d.Default()
	}
	w := writing{force: true, scope: scope{namespace: "default"}}
	return docs, w.check(docs)
}

func (e *env) warn(issues []v1.Issue) {
	for _, i := range issues {
		field := ""
		if i.Field != "" {
			field = i.Field + ": "
		}
		fmt.Fprintf(e.Err, "warning: %s: %s%s\n", i.Object, field, i.Reason)
	}
}

// errDenied says that --check was asked for and something is denied.
var errDenied = errors.New("denied")
