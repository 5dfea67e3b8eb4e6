package eventschema

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// schema names one version of one type of event.
type schema struct {
	eventType string
	version   int
}

func (s schema) String() string { return fmt.Sprintf("%s version %d", s.eventType, s.version) }

// stored is an event's JSON in one version of its schema, fields by their proto names.
type stored struct {
	schema schema
	fields map[string]any // numbers are json.Number
}

// upcaster says how an event of an old schema is read.
type upcaster struct {
	// to are the schemas that it may become, so that the whole chain can be checked before any event is read: usually the
	// next version of its type; another type where it was renamed; several where it was split; none where it no longer
	// means anything.
	to []schema
	// rewrite returns what an event becomes, in order. It may change and keep the fields, but give them to one only.
	rewrite func(fields map[string]any) []stored
}

// upcasters has one entry for every schema that is no longer written. An entry stays for good, as what is stored does.
func upcasters() map[schema]upcaster {
	return map[schema]upcaster{
		{"OrderPlaced", 1}: into(schema{"OrderPlaced", 2}, func(fields map[string]any) {
			setDefault(fields, "priority", "PRIORITY_STANDARD")
		}),
	}
}

// into is the upcaster of an event that becomes one other, with its fields changed.
func into(to schema, change func(fields map[string]any)) upcaster {
	return upcaster{to: []schema{to}, rewrite: func(fields map[string]any) []stored {
		change(fields)
		return []stored{{to, fields}}
	}}
}

func setDefault(fields map[string]any, name string, value any) {
	if _, ok := fields[name]; !ok {
		fields[name] = value
	}
}

// upcast follows the chain of upcasters to schemas that have none: the current ones.
func (r *Registry) upcast(s stored) ([]stored, error) {
	up, old := r.upcasters[s.schema]
	if !old {
		return []stored{s}, nil
	}
	var current []stored
	for _, next := range up.rewrite(s.fields) {
		if !slices.Contains(up.to, next.schema) {
			return nil, fmt.Errorf("the upcaster of %s makes %s, which it does not declare", s.schema, next.schema)
		}
		more, err := r.upcast(next)
		if err != nil {
			return nil, err
		}
		current = append(current, more...)
	}
	return current, nil
}

// checkChains finds what would be noticed only when an old event is read: a version without an upcaster, an upcaster of
// what is still written or to what nobody can read, and a chain without an end.
func (r *Registry) checkChains() error {
	for eventType, latest := range r.latest {
		for v := 1; v <= latest; v++ {
			if !r.reads(schema{eventType, v}) {
				return fmt.Errorf("no upcaster for version %d of %s", v, eventType)
			}
		}
	}
	for _, s := range slices.SortedFunc(maps.Keys(r.upcasters), compareSchemas) {
		up := r.upcasters[s]
		c, written := r.current[s.eventType]
		switch {
		case up.rewrite == nil:
			return fmt.Errorf("the upcaster of %s does nothing", s)
		case s.version < 1:
			return fmt.Errorf("an upcaster for version %d of %s: versions begin at 1", s.version, s.eventType)
		case written && s.version >= c.version:
			return fmt.Errorf("an upcaster for version %d of %s, whose current one is %d", s.version, s.eventType, c.version)
		}
		for _, to := range up.to {
			if !r.reads(to) {
				return fmt.Errorf("the upcaster of %s leads to %s, which nothing reads", s, to)
			}
		}
		if r.leadsTo(s, s, map[schema]bool{}) {
			return fmt.Errorf("the upcaster of %s leads back to it", s)
		}
	}
	return nil
}

// reads tells whether a schema is a current one, or has an upcaster.
func (r *Registry) reads(s schema) bool {
	_, old := r.upcasters[s]
	c, written := r.current[s.eventType]
	return old || written && s.version == c.version
}

// leadsTo tells whether a chain of upcasters goes from one schema to another.
func (r *Registry) leadsTo(from, to schema, visited map[schema]bool) bool {
	for _, next := range r.upcasters[from].to {
		if next == to {
			return true
		}
		if !visited[next] {
			visited[next] = true
			if r.leadsTo(next, to, visited) {
				return true
			}
		}
	}
	return false
}

func compareSchemas(a, b schema) int {
	return cmp.Or(cmp.Compare(a.eventType, b.eventType), cmp.Compare(a.version, b.version))
}
