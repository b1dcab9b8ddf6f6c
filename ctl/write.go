package ctl

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/config"
	"cairn.network/cairn/datastore"
)

// outcome is what became of an object.
type outcome string

const (
	created    outcome = "created"
	configured outcome = "configured"
	unchanged  outcome = "unchanged"
	replaced   outcome = "replaced"
	deleted    outcome = "deleted"
	skipped    outcome = "skipped"
)

// verb is a command that writes the objects of documents.
type verb struct {
	name string
	// plan says what is to become of an object that is there already, or not.
	plan func(there bool) (outcome, error)
	// either says that both creating and updating are meant, so that losing a race
	// against another writer is no error.
	either bool
}

// writing is what the flags of such a command say.
type writing struct {
	files     []string
	recursive bool
	force     bool
	dryRun    bool
	skip      bool
	scope     scope
}

func (w *writing) addFlags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringSliceVarP(&w.files, "filename", "f", nil, "file or folder with YAML or JSON documents; - for standard input")
	fs.BoolVarP(&w.recursive, "recursive", "R", false, "read the folders in folders too")
	fs.BoolVar(&w.force, "force", false, "also kinds that only agents write")
	fs.BoolVar(&w.dryRun, "dry-run", false, "check everything and say what would be done, but write nothing")
	config.CallOnly(fs, "filename", "recursive", "force", "dry-run")
	w.scope.addFlag(cmd)
}

func (w *writing) addSkip(cmd *cobra.Command, name, usage string) {
	cmd.Flags().BoolVar(&w.skip, name, false, usage)
	config.CallOnly(cmd.Flags(), name)
}

const (
	checkedFirst = `Everything given is checked first: form, fields, values, that new pools overlap no
other, that the tiers of policies exist, that nothing changes that never may. If one
object is bad, nothing is written. What a document says in metadata.resourceVersion
must still hold.`
	onlyAgents = `IPAMBlock, WorkloadEndpoint and NodeStatus are written by agents. Writing them by
hand can give an address twice, so it takes --force.`
)

func (e *env) create() *cobra.Command {
	var w writing
	cmd := e.writer(&w, verb{name: "create", plan: func(there bool) (outcome, error) {
		switch {
		case !there:
			return created, nil
		case w.skip:
			return skipped, nil
		}
		return "", datastore.ErrExists
	}})
	cmd.Short = "Create resources that are not there yet"
	cmd.Long = "Create resources. One that is there already is an error.\n\n" + checkedFirst + "\n\n" + onlyAgents
	cmd.Example = `  cairn ctl create -f pool.yaml
  cairn ctl create -f manifests/ -R --skip-exists`
	w.addSkip(cmd, "skip-exists", "leave alone what is there already")
	return cmd
}

func (e *env) apply() *cobra.Command {
	var w writing
	cmd := e.writer(&w, verb{name: "apply", either: true, plan: func(there bool) (outcome, error) {
		if there {
			return configured, nil
		}
		return created, nil
	}})
	cmd.Short = "Create resources, or make them what is given"
	cmd.Long = "Create resources, or replace those that are there already by what is given:\nspec, labels and annotations become those of the document, and defaults where it\nsays nothing.\n\n" + checkedFirst + "\n\n" + onlyAgents
	cmd.Example = `  cairn ctl apply -f pool.yaml
  cairn ctl get ippool blue -o yaml | sed 's/disabled: true/disabled: false/' | cairn ctl apply -f -
  cairn ctl apply -f manifests/ --dry-run`
	return cmd
}

func (e *env) replace() *cobra.Command {
	var w writing
	cmd := e.writer(&w, verb{name: "replace", plan: func(there bool) (outcome, error) {
		switch {
		case there:
			return replaced, nil
		case w.skip:
			return skipped, nil
		}
		return "", datastore.ErrNotFound
	}})
	cmd.Short = "Replace resources that are there"
	cmd.Long = "Replace resources. One that is not there is an error.\n\n" + checkedFirst + "\n\n" + onlyAgents
	cmd.Example = `  cairn ctl replace -f pool.yaml
  cairn ctl replace -f manifests/ --skip-not-exists`
	w.addSkip(cmd, "skip-not-exists", "pass over what is not there")
	return cmd
}

// writer returns the command of a verb, still without words.
func (e *env) writer(w *writing, v verb) *cobra.Command {
	cmd := &cobra.Command{
		Use:  v.name + " -f FILE|FOLDER|-…",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(w.files) == 0 {
				return misuse("%s wants a file: -f FILE, -f FOLDER or -f -", cmd.CommandPath())
			}
			return e.write(cmd.Context(), w, v)
		},
	}
	w.addFlags(cmd)
	return cmd
}

func (e *env) write(ctx context.Context, w *writing, v verb) error {
	docs, err := readDocuments(w.files, w.recursive, e.In)
	if err != nil {
		return nothing("written", err)
	}
	if err := w.check(docs); err != nil {
		return nothing("written", err)
	}
	store, err := e.open()
	if err != nil {
		return err
	}
	steps, err := e.plan(ctx, store, docs, v)
	if err != nil {
		return nothing("written", err)
	}
	for i, s := range steps {
		if !w.dryRun && s.outcome != skipped {
			if s.outcome, err = put(ctx, store, s, v.either); err != nil {
				return partly(s.fail(err), i, len(steps))
			}
		}
		e.report(s.key(), s.outcome, w.dryRun)
	}
	return nil
}

// report writes one line about an object.
func (e *env) report(key datastore.Key, o outcome, dry bool) {
	line := slug(key) + " " + string(o)
	if dry {
		line += " (dry run)"
	}
	fmt.Fprintln(e.Out, line)
}

// slug names an object on one word: ippool/blue.
func slug(key datastore.Key) string {
	parts := []string{strings.ToLower(key.Kind), key.Namespace, key.Name}
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), "/")
}

// nothing says that mistakes were found before anything was done.
func nothing(done string, err error) error {
	if strings.Contains(err.Error(), "\n") {
		return fmt.Errorf("%w\nnothing was %s", err, done)
	}
	return fmt.Errorf("%w; nothing was %s", err, done)
}

// partly says how far a command came that failed under way.
func partly(err error, done, all int) error {
	if all == 1 {
		return err
	}
	return fmt.Errorf("%w; %d of %d objects were written", err, done, all)
}

// put does what was planned and returns what came of it.
func put(ctx context.Context, store datastore.Store, s step, either bool) (outcome, error) {
	if s.outcome == created {
		_, err := store.Create(ctx, s.Object)
		if err == nil {
			return created, nil
		}
		if !either || !errors.Is(err, datastore.ErrExists) {
			return "", err
		}
	}
	before := ""
	after, err := datastore.Update(ctx, store, s.key(), func(o v1.Object) error {
		before = o.GetResourceVersion()
		if err := replaceable(o, s.Object); err != nil {
			return err
		}
		assign(o, s.Object)
		return nil
	})
	switch {
	case either && isNotFound(err) && s.outcome != created:
		return put(ctx, store, step{s.document, created}, false)
	case err != nil:
		return "", err
	case s.outcome == replaced:
		return replaced, nil
	case after.GetResourceVersion() == before:
		return unchanged, nil
	}
	return configured, nil
}

// assign makes o what new says, but for what the store keeps of it.
func assign(o, new v1.Object) {
	next := new.DeepCopyObject().(v1.Object)
	next.SetResourceVersion(o.GetResourceVersion())
	next.SetUID(o.GetUID())
	next.SetCreationTimestamp(o.GetCreationTimestamp())
	next.SetGeneration(o.GetGeneration())
	// Both are pointers to structs of one kind.
	reflect.ValueOf(o).Elem().Set(reflect.ValueOf(next).Elem())
}
