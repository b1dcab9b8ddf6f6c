package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/config"
	"cairn.network/cairn/datastore"
)

// allKinds is the word for every kind at once.
const allKinds = "all"

// scope says in which namespace names are looked up.
type scope struct {
	namespace string
	all       bool
}

func (s *scope) addFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&s.namespace, "namespace", "n", metav1.NamespaceDefault, "namespace of kinds that have one")
}

func (s *scope) addAllFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&s.all, "all-namespaces", "A", false, "every namespace")
	config.CallOnly(cmd.Flags(), "all-namespaces")
}

// key names an object of the kind in this scope.
func (s *scope) key(kind v1.Kind, name string) datastore.Key {
	k := datastore.Key{Kind: kind.Name, Name: name}
	if kind.Namespaced {
		k.Namespace = s.namespace
	}
	return k
}

// holds says whether an object is in this scope.
func (s *scope) holds(kind v1.Kind, o v1.Object) bool {
	return !kind.Namespaced || s.all || o.GetNamespace() == s.namespace
}

func (e *env) get() *cobra.Command {
	var f format
	var s scope
	cmd := &cobra.Command{
		Use:   "get KIND[,KIND…]|all [NAME…]",
		Short: "Show resources",
		Long: `Show resources of one or several kinds, all of them or those named.

` + kindsText() + `

JSON and YAML are what create, apply, replace and delete take with -f.`,
		Example: `  cairn ctl get ippools
  cairn ctl get ippool blue -o yaml
  cairn ctl get nodes,bgppeers -o wide
  cairn ctl get weps -A
  cairn ctl get bgpconfigs,bgppeers,ippools,nodes -o yaml > cluster.yaml   # a backup`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return misuse("%s wants a kind: one of %s, or all", cmd.CommandPath(), strings.Join(kindNames(), ", "))
			}
			return nil
		},
		ValidArgsFunction: completeKind,
		RunE: func(cmd *cobra.Command, args []string) error {
			kinds, err := kindsOf(args[0])
			if err != nil {
				return err
			}
			if names := args[1:]; len(names) > 0 {
				return e.getNamed(cmd.Context(), kinds, names, &s, f)
			}
			return e.getAll(cmd.Context(), kinds, &s, f)
		},
	}
	addFormat(cmd, &f)
	s.addFlag(cmd)
	s.addAllFlag(cmd)
	return cmd
}

// kindsOf returns the kinds that a comma-separated list names.
func kindsOf(list string) ([]v1.Kind, error) {
	if strings.EqualFold(list, allKinds) {
		return v1.Kinds(), nil
	}
	var kinds []v1.Kind
	for name := range strings.SplitSeq(list, ",") {
		k, err := kindOf(name)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(kinds, func(o v1.Kind) bool { return o.Name == k.Name }) {
			kinds = append(kinds, k)
		}
	}
	return kinds, nil
}

func kindOf(name string) (v1.Kind, error) {
	k, ok := v1.KindByName(name)
	if !ok {
		return k, misuse("there is no kind %q: the kinds are %s", name, strings.Join(kindNames(), ", "))
	}
	return k, nil
}

func kindNames() []string {
	var names []string
	for _, k := range v1.Kinds() {
		names = append(names, k.Plural)
	}
	slices.Sort(names)
	return names
}

// kindsText is the help's paragraph about kinds.
func kindsText() string {
	t := "Kinds, by name, plural or short name, in whatever case:"
	for _, k := range v1.Kinds() {
		t += fmt.Sprintf("\n  %-25s %s", k.Name, strings.Join(append([]string{k.Plural}, k.ShortNames...), ", "))
		if agentWritten(k.Name) {
			t += "  (written by agents)"
		}
	}
	return t
}

func completeKind(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return kindNames(), cobra.ShellCompDirectiveNoFileComp
}

// getNamed shows the objects of these names. Those that are not there are an
// error, after the others were shown.
func (e *env) getNamed(ctx context.Context, kinds []v1.Kind, names []string, s *scope, f format) error {
	switch {
	case len(kinds) > 1:
		return misuse("names can be given with one kind only")
	case s.all:
		return misuse("names can't be given with --all-namespaces")
	}
	store, err := e.open()
	if err != nil {
		return err
	}
	var found []v1.Object
	var missing []error
	for _, name := range names {
		key := s.key(kinds[0], name)
		o, err := store.Get(ctx, key)
		switch {
		case isNotFound(err):
			missing = append(missing, notFound(key))
		case err != nil:
			return err
		default:
			found = append(found, o)
		}
	}
	switch {
	case len(found) == 0:
	case f.machine() && len(names) == 1:
		err = f.write(e.Out, found[0])
	case f.machine():
		err = f.write(e.Out, listOf(found))
	default:
		err = e.writeTable(kinds[0], found, s, f, false)
	}
	return errors.Join(append(missing, err)...)
}

// getAll shows every object of the kinds.
func (e *env) getAll(ctx context.Context, kinds []v1.Kind, s *scope, f format) error {
	store, err := e.open()
	if err != nil {
		return err
	}
	var all [][]v1.Object
	for _, k := range kinds {
		objects, err := e.list(ctx, store, k.Name)
		if err != nil {
			return err
		}
		objects = slices.DeleteFunc(objects, func(o v1.Object) bool { return !s.holds(k, o) })
		all = append(all, objects)
	}
	if f.machine() {
		return f.write(e.Out, listOf(slices.Concat(all...)))
	}
	shown := 0
	for i, k := range kinds {
		if len(all[i]) == 0 {
			continue
		}
		if shown++; shown > 1 {
			fmt.Fprintln(e.Out)
		}
		if err := e.writeTable(k, all[i], s, f, len(kinds) > 1); err != nil {
			return err
		}
	}
	if shown == 0 {
		var names []string
		for _, k := range kinds {
			names = append(names, k.Plural)
		}
		what := strings.Join(names, ", ")
		if len(kinds) == len(v1.Kinds()) {
			what = "resources"
		}
		fmt.Fprintf(e.Err, "No %s found.\n", what)
	}
	return nil
}

// writeTable writes objects of one kind; where there are several kinds the
// names carry theirs.
func (e *env) writeTable(kind v1.Kind, objects []v1.Object, s *scope, f format, several bool) error {
	var t table
	cols := slices.DeleteFunc(columnsOf(kind.Name), func(c column) bool { return c.wide && !f.wide() })
	if kind.Namespaced && s.all {
		t.head = append(t.head, "NAMESPACE")
	}
	t.head = append(t.head, "NAME")
	for _, c := range cols {
		t.head = append(t.head, c.head)
	}
	for _, o := range objects {
		var row []string
		if kind.Namespaced && s.all {
			row = append(row, o.GetNamespace())
		}
		name := o.GetName()
		if several {
			name = strings.ToLower(kind.Name) + "/" + name
		}
		row = append(row, name)
		for _, c := range cols {
			row = append(row, c.cell(o))
		}
		t.add(row...)
	}
	return t.plain(e.Out)
}

// objectList is several objects in one, as kubectl writes them.
type objectList struct {
	metav1.TypeMeta `json:",inline"`
	Items           []v1.Object `json:"items"`
}

func listOf(objects []v1.Object) objectList {
	if objects == nil {
		objects = []v1.Object{}
	}
	return objectList{metav1.TypeMeta{APIVersion: "v1", Kind: "List"}, objects}
}
