package ctl

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/config"
	"cairn.network/cairn/datastore"
)

// racing lets another writer be faster: before a Create or Update of ours it
// calls once what the other does.
type racing struct {
	*datastore.Memory
	other func()
}

func (r *racing) race() {
	if other := r.other; other != nil {
		r.other = nil
		other()
	}
}

func (r *racing) Create(ctx context.Context, o v1.Object) (v1.Object, error) {
	r.race()
	return r.Memory.Create(ctx, o)
}

func (r *racing) Update(ctx context.Context, o v1.Object) (v1.Object, error) {
	r.race()
	return r.Memory.Update(ctx, o)
}

// run runs the command line on a store.
func run(store datastore.Store, in, args string) (string, error) {
	var out bytes.Buffer
	root := &cobra.Command{Use: "cairn", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(New(Options{
		Open: func(config.Datastore) (datastore.Store, error) { return store, nil },
		In:   strings.NewReader(in), Out: &out, Err: &out,
	}))
	config.Bind(root, config.Sources{})
	root.SetArgs(strings.Fields(args))
	err := root.Execute()
	return out.String(), err
}

func pool(name, rest string) string {
	return "---\n{apiVersion: cairn.network/v1, kind: IPPool, metadata: {name: " + name + "}, spec: {" + rest + "}}\n"
}

func TestOtherWriters(t *testing.T) {
	key := datastore.Key{Kind: "IPPool", Name: "blue"}
	const cidr = "cidr: 10.244.0.0/16"
	for name, tt := range map[string]struct {
		verb  string
		there string // in the store before
		other func(*testing.T, *datastore.Memory)
		want  string
		err   string
	}{
		"created meanwhile": {
			verb: "apply", other: apply(pool("blue", cidr)), want: "ippool/blue configured\n",
		},
		"created meanwhile, the same": {
			verb: "apply", other: apply(pool("blue", cidr+", disabled: true")), want: "ippool/blue unchanged\n",
		},
		"created meanwhile with another range": {
			verb: "apply", other: apply(pool("blue", "cidr: 10.245.0.0/16")),
			err: "spec.cidr: Invalid value",
		},
		"create loses": {
			verb: "create", other: apply(pool("blue", cidr)), err: "stdin: create IPPool blue: already exists",
		},
		"changed meanwhile": {
			verb: "apply", there: pool("blue", cidr), other: apply(pool("blue", cidr+", natOutgoing: true")), want: "ippool/blue configured\n",
		},
		"deleted meanwhile": {
			verb: "apply", there: pool("blue", cidr), other: remove(key), want: "ippool/blue created\n",
		},
		"replace loses": {
			verb: "replace", there: pool("blue", cidr), other: remove(key), err: "IPPool blue: not found",
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := &racing{Memory: datastore.NewMemory()}
			if tt.there != "" {
				apply(tt.there)(t, store.Memory)
			}
			store.other = func() { tt.other(t, store.Memory) }
			out, err := run(store, pool("blue", cidr+", disabled: true"), "ctl "+tt.verb+" -f -")
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, out); d != "" {
				t.Errorf("output (-want +got):\n%s", d)
			}
			o, err := store.Get(t.Context(), key)
			if err != nil || !o.(*v1.IPPool).Spec.Disabled || o.(*v1.IPPool).Spec.NATOutgoing {
				t.Errorf("the store holds %+v, %v", o, err)
			}
		})
	}
}

func apply(text string) func(*testing.T, *datastore.Memory) {
	return func(t *testing.T, m *datastore.Memory) {
		if _, err := run(m, text, "ctl apply -f -"); err != nil {
			t.Error(err)
		}
	}
}

func remove(key datastore.Key) func(*testing.T, *datastore.Memory) {
	return func(t *testing.T, m *datastore.Memory) {
		if err := m.Delete(t.Context(), key, ""); err != nil {
			t.Error(err)
		}
	}
}

// TestPartialFailure: a datastore that goes away under way leaves what was
// written, and the error says how much.
func TestPartialFailure(t *testing.T) {
	store := datastore.NewMemory()
	writes := 0
	store.Inject(func(c datastore.Call) datastore.Fault {
		if c.Verb != datastore.VerbCreate && c.Verb != datastore.VerbDelete {
			return datastore.Fault{}
		}
		if writes++; writes == 2 {
			return datastore.Fault{Before: datastore.ErrUnavailable}
		}
		return datastore.Fault{}
	})
	docs := pool("a", "cidr: 10.0.0.0/16") + pool("b", "cidr: 10.1.0.0/16") + pool("c", "cidr: 10.2.0.0/16")
	out, err := run(store, docs, "ctl apply -f -")
	if !errors.Is(err, datastore.ErrUnavailable) || !strings.HasSuffix(err.Error(), "; 1 of 3 objects were written") || out != "ippool/a created\n" {
		t.Errorf("apply: %q, %v", out, err)
	}
	if out, err = run(store, docs, "ctl apply -f -"); err != nil || out != "ippool/a unchanged\nippool/b created\nippool/c created\n" {
		t.Errorf("apply again: %q, %v", out, err)
	}
	writes = 0
	out, err = run(store, docs, "ctl delete -f -")
	if !errors.Is(err, datastore.ErrUnavailable) || !strings.HasSuffix(err.Error(), "; 1 of 3 objects were deleted") || out != "ippool/a deleted\n" {
		t.Errorf("delete: %q, %v", out, err)
	}
}

// TestUnreadable: what can't be read hides nothing else, and can be deleted.
func TestUnreadable(t *testing.T) {
	store := datastore.NewMemory()
	apply(pool("good", "cidr: 10.0.0.0/16"))(t, store)
	store.PutRaw(datastore.Key{Kind: "IPPool", Name: "bad"}, []byte("nonsense"))
	out, err := run(store, "", "ctl get ippools")
	if err != nil || !strings.Contains(out, "warning: IPPool bad: unreadable") || !strings.Contains(out, "good   10.0.0.0/16") {
		t.Errorf("get: %q, %v", out, err)
	}
	if _, err = run(store, pool("bad", "cidr: 10.1.0.0/16"), "ctl apply -f -"); !errors.Is(err, datastore.ErrBroken) {
		t.Errorf("apply: %v", err)
	}
	if out, err = run(store, "", "ctl delete ippool bad"); err != nil || !strings.HasSuffix(out, "ippool/bad deleted\n") {
		t.Errorf("delete: %q, %v", out, err)
	}
	if out, err = run(store, "", "ctl get ippools"); err != nil || strings.Contains(out, "warning") {
		t.Errorf("get afterwards: %q, %v", out, err)
	}
}
