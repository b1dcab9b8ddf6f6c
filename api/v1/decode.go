package v1

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"
)

// Decode returns the objects of a YAML stream or of JSON texts, defaulted: one in
// each document, or several in a document of kind List. It does not validate
// them, see Check. Fields that the kind does not have, and fields given twice,
// are errors. All errors come back joined, each one line that names the document
// and, where it has got so far, the object and the field.
func Decode(data []byte) ([]Object, error) {
	docs, err := documents(data)
	var objects []Object
	var errs []error
	for i, doc := range docs {
		if doc == nil { // nothing between two separators
			continue
		}
		got, err := decodeDocument(doc)
		objects = append(objects, got...)
		for _, err := range err {
			errs = append(errs, fmt.Errorf("document %d, %w", i+1, err))
		}
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("document %d: %w", len(docs)+1, err))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return objects, nil
}

// documents splits the text and returns the documents as JSON, those before the
// first that is malformed. An empty document is nil.
func documents(data []byte) ([][]byte, error) {
	if docs, ok := jsonTexts(data); ok {
		return docs, nil
	}
	in := yaml.NewDecoder(bytes.NewReader(data))
	var docs [][]byte
	for {
		var n yaml.Node
		err := in.Decode(&n)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		var v any
		if err == nil {
			keepTimes(&n)
			err = n.Decode(&v)
		}
		if err != nil {
			return docs, oneLine(err)
		}
		var doc []byte
		if v != nil {
			if doc, err = stdjson.Marshal(jsonValue(v)); err != nil {
				return docs, err
			}
		}
		docs = append(docs, doc)
	}
}

// jsonTexts returns the JSON texts that data consists of, and false if it is
// anything else. YAML's parser takes most of JSON, but not tabs.
func jsonTexts(data []byte) ([][]byte, bool) {
	var docs [][]byte
	for in := stdjson.NewDecoder(bytes.NewReader(data)); ; {
		var doc stdjson.RawMessage
		err := in.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs, true
		}
		if err != nil {
			return nil, false
		}
		docs = append(docs, doc)
	}
}

// keepTimes makes strings of what looks like a time, so that a label of
// 2026-01-01 stays that.
func keepTimes(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!timestamp" {
		n.Tag = "!!str"
	}
	for _, c := range n.Content {
		keepTimes(c)
	}
}

// jsonValue turns YAML's maps, which have keys of any type, into JSON's.
func jsonValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			v[key] = jsonValue(value)
		}
	case map[any]any:
		m := make(map[string]any, len(v))
		for key, value := range v {
			m[fmt.Sprint(key)] = jsonValue(value)
		}
		return m
	case []any:
		for i := range v {
			v[i] = jsonValue(v[i])
		}
	}
	return v
}

// oneLine returns an error of YAML's parser without line breaks.
func oneLine(err error) error {
	text := strings.Join(strings.Fields(err.Error()), " ")
	text = strings.TrimPrefix(text, "yaml: ")
	return errors.New(strings.TrimPrefix(text, "unmarshal errors: "))
}

// list is a document with several objects.
type list struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []stdjson.RawMessage `json:"items"`
}

// decodeDocument returns the objects of one document.
func decodeDocument(doc []byte) ([]Object, []error) {
	var head metav1.TypeMeta
	// A document that is no map is reported when its kind is missed.
	_ = json.UnmarshalCaseSensitivePreserveInts(doc, &head)
	base, isList := strings.CutSuffix(head.Kind, "List")
	versions := versionsOf(base)
	if !isList || base != "" && len(versions) == 0 {
		o, errs := decodeObject(doc)
		if len(errs) > 0 {
			return nil, errs
		}
		return []Object{o}, nil
	}
	var l list
	strict, err := json.UnmarshalStrict(doc, &l)
	if err != nil {
		strict = append(strict, err)
	}
	if l.APIVersion != APIVersion && l.APIVersion != coreVersion && !slices.Contains(versions, l.APIVersion) {
		strict = append(strict, fmt.Errorf("apiVersion: must be %s, not %q", APIVersion, l.APIVersion))
	}
	var errs []error
	for _, err := range strict {
		errs = append(errs, fmt.Errorf("%s: %w", head.Kind, err))
	}
	var objects []Object
	for i, item := range l.Items {
		o, itemErrs := decodeObject(item)
		for _, err := range itemErrs {
			errs = append(errs, fmt.Errorf("item %d, %w", i+1, err))
		}
		objects = append(objects, o)
	}
	return objects, errs
}

// decodeObject returns the one object of a text.
func decodeObject(doc []byte) (Object, []error) {
	var head metav1.PartialObjectMetadata
	if err := json.UnmarshalCaseSensitivePreserveInts(doc, &head); err != nil && head.Kind == "" {
		return nil, []error{errors.New("object: must be a map with apiVersion, kind and metadata")}
	}
	name := strings.TrimSpace(head.Kind + " " + strings.TrimPrefix(head.Namespace+"/"+head.Name, "/"))
	if name == "" {
		name = "object"
	}
	fail := func(format string, args ...any) (Object, []error) {
		return nil, []error{fmt.Errorf("%s: %w", name, fmt.Errorf(format, args...))}
	}
	kind, ok := kindCarrying(head.APIVersion, head.Kind)
	versions := versionsOf(head.Kind)
	switch {
	case ok:
	case head.Kind == "":
		return fail("kind: Required value")
	case len(versions) > 0:
		return fail("apiVersion: must be %s, not %q", strings.Join(versions, " or "), head.APIVersion)
	case head.APIVersion != APIVersion && !outside(head.APIVersion):
		return fail("apiVersion: must be %s, not %q", APIVersion, head.APIVersion)
	default:
		return fail("kind: must be one of %s", strings.Join(carriedKinds(head.APIVersion), ", "))
	}
	o := kind.New()
	strict, err := json.UnmarshalStrict(doc, o)
	if err != nil {
		field, reason := blame(kind, doc, err)
		return fail("%s: %s", field, reason)
	}
	var errs []error
	for _, err := range strict {
		errs = append(errs, fmt.Errorf("%s: %w", name, err))
	}
	o.Default()
	return o, errs
}

// carriedKinds returns the kinds that objects of an API may carry.
func carriedKinds(apiVersion string) []string {
	var kinds []string
	for _, k := range Kinds() {
		if k.APIVersion() == apiVersion {
			kinds = append(kinds, k.carried())
		}
	}
	return kinds
}

// outside says whether objects of another API may carry this apiVersion.
func outside(apiVersion string) bool {
	return slices.ContainsFunc(Kinds(), func(k Kind) bool { return apiVersion != "" && k.OutsideVersion == apiVersion })
}

// blame says which field of an object of the kind can't be decoded, and why.
func blame(kind Kind, doc []byte, err error) (field, reason string) {
	var mismatch *stdjson.UnmarshalTypeError
	if errors.As(stdjson.Unmarshal(doc, kind.New()), &mismatch) && mismatch.Field != "" {
		return withoutEmbedded(mismatch.Field), fmt.Sprintf("must be %s, not %s", word(mismatch.Type), mismatch.Value)
	}
	// Errors of types that decode themselves don't say where they arose. Each
	// value is tried alone: the one that fails alone is at fault.
	var tree any
	if stdjson.Unmarshal(doc, &tree) == nil {
		for path, alone := range leaves(tree) {
			text, _ := stdjson.Marshal(alone)
			if err := json.UnmarshalCaseSensitivePreserveInts(text, kind.New()); err != nil {
				return strings.TrimPrefix(path, "."), err.Error()
			}
		}
	}
	return "object", err.Error()
}

// withoutEmbedded drops from a field's path what is no field: the Go names of embedded
// structs, which alone begin with a capital.
func withoutEmbedded(path string) string {
	parts := slices.DeleteFunc(strings.Split(path, "."), func(p string) bool { return p != "" && p[0] >= 'A' && p[0] <= 'Z' })
	return strings.Join(parts, ".")
}

// word says what a type is to somebody who writes YAML.
func word(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "a map"
	case reflect.Slice:
		return "a list"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Uint32:
		return fmt.Sprintf("a whole number from 0 to %d", uint32(math.MaxUint32))
	case reflect.Float64:
		return "a number"
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint64:
		return "a whole number"
	}
	return t.String()
}

// leaves yields the path of every value of a JSON tree that is no map and no
// list, and a tree in which it is alone.
func leaves(tree any) func(yield func(path string, alone any) bool) {
	return func(yield func(string, any) bool) {
		switch tree := tree.(type) {
		case map[string]any:
			for _, key := range slices.Sorted(maps.Keys(tree)) {
				for path, alone := range leaves(tree[key]) {
					if !yield("."+key+path, map[string]any{key: alone}) {
						return
					}
				}
			}
		case []any:
			for i, v := range tree {
				for path, alone := range leaves(v) {
					if !yield(fmt.Sprintf("[%d]%s", i, path), []any{alone}) {
						return
					}
				}
			}
		default:
			yield("", tree)
		}
	}
}
