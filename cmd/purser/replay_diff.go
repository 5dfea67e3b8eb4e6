package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
)

// change is one difference between two JSON values.
type change struct {
	// Path is where in an object it is: "lines[0].quantity". It is empty for an element that a list has gained or lost.
	Path string `json:"path,omitempty"`
	// Old or New is absent where there was or is nothing.
	Old json.RawMessage `json:"old,omitempty"`
	New json.RawMessage `json:"new,omitempty"`
}

func (c change) String() string {
	switch {
	case c.Path != "":
		return fmt.Sprintf("%s: %s -> %s", c.Path, orNothing(c.Old), orNothing(c.New))
	case c.Old != nil:
		return "- " + string(c.Old)
	default:
		return "+ " + string(c.New)
	}
}

func orNothing(v json.RawMessage) string {
	if v == nil {
		return "nothing"
	}
	return string(v)
}

// diff returns what differs between two objects, field by field, or what one of two lists has and the other has not.
func diff(before, after json.RawMessage) ([]change, error) {
	if bytes.HasPrefix(after, []byte("[")) {
		return listDiff(before, after)
	}
	a, err := decoded(before)
	if err != nil {
		return nil, err
	}
	b, err := decoded(after)
	if err != nil {
		return nil, err
	}
	return fieldDiff(nil, "", a, b), nil
}

func decoded(v json.RawMessage) (any, error) {
	d := json.NewDecoder(bytes.NewReader(v))
	d.UseNumber()
	var out any
	if err := d.Decode(&out); err != nil {
		return nil, fmt.Errorf("compare states: %w", err)
	}
	return out, nil
}

// listDiff compares elements as a whole, as they stand in the lists.
func listDiff(before, after json.RawMessage) ([]change, error) {
	var a, b []json.RawMessage
	if err := json.Unmarshal(before, &a); err != nil {
		return nil, fmt.Errorf("compare states: %w", err)
	}
	if err := json.Unmarshal(after, &b); err != nil {
		return nil, fmt.Errorf("compare states: %w", err)
	}
	has := func(list []json.RawMessage, v json.RawMessage) bool {
		return slices.ContainsFunc(list, func(o json.RawMessage) bool { return bytes.Equal(o, v) })
	}
	var all []change
	for _, v := range a {
		if !has(b, v) {
			all = append(all, change{Old: v})
		}
	}
	for _, v := range b {
		if !has(a, v) {
			all = append(all, change{New: v})
		}
	}
	return all, nil
}

// absent stands for a field or an element that is not there.
type absent struct{}

func fieldDiff(all []change, path string, a, b any) []change {
	if reflect.DeepEqual(a, b) {
		return all
	}
	oa, isA := a.(map[string]any)
	ob, isB := b.(map[string]any)
	if isA && isB {
		keys := slices.Concat(slices.Collect(maps.Keys(oa)), slices.Collect(maps.Keys(ob)))
		slices.Sort(keys)
		for _, k := range slices.Compact(keys) {
			all = fieldDiff(all, below(path, k), field(oa, k), field(ob, k))
		}
		return all
	}
	la, isA := a.([]any)
	lb, isB := b.([]any)
	if isA && isB {
		for i := range max(len(la), len(lb)) {
			all = fieldDiff(all, path+"["+strconv.Itoa(i)+"]", element(la, i), element(lb, i))
		}
		return all
	}
	return append(all, change{Path: path, Old: encoded(a), New: encoded(b)})
}

func below(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func field(object map[string]any, key string) any {
	if v, ok := object[key]; ok {
		return v
	}
	return absent{}
}

func element(list []any, i int) any {
	if i < len(list) {
		return list[i]
	}
	return absent{}
}

// encoded is a value that was decoded from JSON, as JSON again.
func encoded(v any) json.RawMessage {
	if v == any(absent{}) {
		return nil
	}
	b, _ := json.Marshal(v)
	return b
}
