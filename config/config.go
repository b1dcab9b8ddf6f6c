// Package config is the one way in which every command of Cairn is configured:
// its flags, each of which may also be given in the environment or in a file.
//
// It guarantees the order flag, environment, file, default; that a setting
// nobody knows is refused with the file and the key; and that each error names
// where the value came from. What a setting means is left to the command that
// has the flag; only the datastore's settings, which several commands share,
// are here too.
package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

const (
	// DefaultFile is where programs look for their settings: their Sources.File.
	DefaultFile = "/etc/cairn/cairn.yaml"

	fileFlag       = "config"
	variablePrefix = "CAIRN_"
	// Annotations of flags.
	callOnly  = "cairn.network/call-only"
	originKey = "cairn.network/origin"
)

// UsageError is a mistake in how the program was called or configured, as
// opposed to a failure of what it was asked to do.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the mistake.
func (e *UsageError) Unwrap() error { return e.Err }

// Variable returns the name of the environment variable that gives a flag:
// CAIRN_ETCD_ENDPOINTS for etcd-endpoints.
func Variable(flag string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// AddFlags adds the flag that names the file.
func AddFlags(flags *pflag.FlagSet) {
	flags.String(fileFlag, "", "file with settings: YAML, keys are the names of flags (default "+DefaultFile+" if it is there)")
}

// CallOnly marks flags that say what one call shall do: they are taken neither
// from the environment nor from a file, where they would lie in wait for calls
// that never meant them.
func CallOnly(flags *pflag.FlagSet, names ...string) {
	for _, name := range names {
		if err := flags.SetAnnotation(name, callOnly, []string{"true"}); err != nil {
			panic(err) // a name that is no flag is a mistake in the program
		}
	}
}

// Sources is where settings come from besides the command line.
type Sources struct {
	// Environ is the environment, as os.Environ returns it.
	Environ []string
	// File is read if it is there and neither flag nor environment names another.
	File string
	// Known holds the flags of all commands that share the file and the
	// environment: a key that only another command knows is no mistake.
	Known []*pflag.FlagSet
}

// Load gives a value to every flag that the command line did not set: from the
// environment, else from the file, else the default stays. A variable that is
// empty counts as not set. Variables that nobody knows are passed over: a
// Kubernetes Service called cairn-something makes such. Errors are UsageErrors.
func Load(flags *pflag.FlagSet, from Sources) error {
	env := environment(from.Environ)
	file, err := read(flags, env, from)
	if err != nil {
		return &UsageError{err}
	}
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			note(f, "--"+f.Name)
			return
		}
		if !ambient(f) {
			return
		}
		if v := env[Variable(f.Name)]; v != "" {
			errs = append(errs, set(f, v, "environment "+Variable(f.Name)))
		} else if v, ok := file.values[f.Name]; ok {
			errs = append(errs, set(f, v, file.path+": "+f.Name))
		}
	})
	if err := errors.Join(errs...); err != nil {
		return &UsageError{err}
	}
	return nil
}

// Variables returns the environment variables that are read for these flags,
// in order.
func Variables(flags *pflag.FlagSet) []string {
	var names []string
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == fileFlag || ambient(f) {
			names = append(names, Variable(f.Name))
		}
	})
	slices.Sort(names)
	return names
}

// Origin says where a flag's value came from, in the words of errors:
// "--etcd-prefix", "environment CAIRN_ETCD_PREFIX", "cairn.yaml: etcd-prefix". A
// flag with its default value is named as a flag.
func Origin(flags *pflag.FlagSet, name string) string {
	if f := flags.Lookup(name); f != nil && len(f.Annotations[originKey]) == 1 {
		return f.Annotations[originKey][0]
	}
	return "--" + name
}

// ambient says whether a flag may be given other than on the command line.
func ambient(f *pflag.Flag) bool {
	return f.Name != fileFlag && f.Name != "help" && f.Name != "version" && f.Annotations[callOnly] == nil
}

func note(f *pflag.Flag, origin string) {
	if f.Annotations == nil {
		f.Annotations = map[string][]string{}
	}
	f.Annotations[originKey] = []string{origin}
}

// set gives a flag a value: a text, or a list of texts.
func set(f *pflag.Flag, value any, origin string) error {
	var err error
	switch v := value.(type) {
	case []string:
		list, ok := f.Value.(pflag.SliceValue)
		if !ok {
			return fmt.Errorf("%s: a list is given where one value is wanted", origin)
		}
		err = list.Replace(v)
	case string:
		if s, ok := f.Value.(*secret); ok {
			if strings.HasPrefix(origin, "environment ") {
				*s.text = v
				break
			}
			return fmt.Errorf("%s: a secret is not taken from this file: use %s-file or the environment", origin, f.Name)
		}
		err = f.Value.Set(v)
	}
	if err != nil {
		return fmt.Errorf("%s: invalid value %q: %w", origin, value, err)
	}
	f.Changed = true
	note(f, origin)
	return nil
}

// secret is a text that is taken from the environment only.
type secret struct{ text *string }

func (s *secret) String() string { return "" }
func (s *secret) Type() string   { return "string" }

// Set refuses: everyone on the machine can read a process's arguments.
func (s *secret) Set(string) error {
	return errors.New("a secret is not taken from the command line")
}

func environment(environ []string) map[string]string {
	env := map[string]string{}
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(k, variablePrefix) {
			env[k] = v
		}
	}
	return env
}

// settings is what a file says: a string or []string for each key.
type settings struct {
	path   string
	values map[string]any
}

// read reads the file that the flags, the environment or the default name.
func read(flags *pflag.FlagSet, env map[string]string, from Sources) (settings, error) {
	path, wanted := from.File, ""
	if f := flags.Lookup(fileFlag); f != nil && f.Changed {
		path, wanted = f.Value.String(), "--"+fileFlag
	} else if v := env[Variable(fileFlag)]; v != "" {
		path, wanted = v, "environment "+Variable(fileFlag)
	}
	if path == "" {
		return settings{}, nil
	}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && wanted == "":
		return settings{}, nil
	case err != nil && wanted != "":
		return settings{}, fmt.Errorf("%s: %w", wanted, err)
	case err != nil:
		return settings{}, fmt.Errorf("read settings: %w", err)
	}
	values, err := parse(text)
	if err != nil {
		return settings{}, fmt.Errorf("%s: %w", path, err)
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if err := known(key, append(slices.Clone(from.Known), flags)); err != nil {
			return settings{}, fmt.Errorf("%s: %s: %w", path, key, err)
		}
	}
	return settings{path, values}, nil
}

// known says why a key may not stand in a file: no command has such a flag, or
// all that have it take it from the command line only.
func known(key string, sets []*pflag.FlagSet) error {
	err := errors.New("there is no such setting")
	for _, flags := range sets {
		if f := flags.Lookup(key); f == nil {
			continue
		} else if ambient(f) {
			return nil
		}
		err = errors.New("this is taken from the command line only")
	}
	return err
}

func parse(text []byte) (map[string]any, error) {
	js, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, errors.New(strings.ReplaceAll(err.Error(), "\n", " "))
	}
	// Numbers keep their text: 64512 must not become 6.4512e+04.
	d := json.NewDecoder(bytes.NewReader(js))
	d.UseNumber()
	var top any
	if err := d.Decode(&top); err != nil {
		return nil, err
	}
	if top == nil { // an empty file
		return nil, nil
	}
	keys, ok := top.(map[string]any)
	if !ok {
		return nil, errors.New("settings are wanted, one \"key: value\" on each line")
	}
	for key, v := range keys {
		if keys[key], err = texts(v); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	return keys, nil
}

// texts turns a YAML value into a string or a []string.
func texts(v any) (any, error) {
	if list, ok := v.([]any); ok {
		all := make([]string, len(list))
		for i, e := range list {
			s, err := text(e)
			if err != nil {
				return nil, fmt.Errorf("element %d: %w", i+1, err)
			}
			all[i] = s
		}
		return all, nil
	}
	return text(v)
}

func text(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", errors.New("the value is missing")
	case map[string]any, []any:
		return "", errors.New("a plain value is wanted")
	default:
		return fmt.Sprint(v), nil
	}
}
