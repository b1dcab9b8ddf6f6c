package v1

import (
	"encoding/json"
	"fmt"
)

// Encode returns the object as JSON, as it is kept in datastores.
func Encode(o Object) ([]byte, error) {
	data, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", title(o), err)
	}
	return data, nil
}

// DecodeJSON returns the object of the kind that Encode wrote, defaulted. Fields
// it does not know are passed over, for a newer version may have written them.
func DecodeJSON(kind string, data []byte) (Object, error) {
	o, ok := newObject(kind)
	if !ok {
		return nil, fmt.Errorf("no such kind: %q", kind)
	}
	if err := json.Unmarshal(data, o); err != nil {
		return nil, fmt.Errorf("decode %s: %w", kind, err)
	}
	k, _ := KindByName(kind)
	if got := o.GetObjectKind().GroupVersionKind(); got != k.GroupVersionKind() {
		return nil, fmt.Errorf("decode %s: it is a %s", kind, got)
	}
	o.Default()
	return o, nil
}
