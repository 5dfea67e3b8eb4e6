package eventschema

// stored is an event's JSON in one version of its schema, fields by their proto names.
type stored struct {
	schema schema
	fields map[string]any // numbers are json.Number
}

// schema names one version of one type of event.
type schema struct {
	eventType string
	version   int
}

// upcaster rewrites an event of an old schema: usually into the next version of its type; into another type where it was
// renamed, into several where it was split, into none where it no longer means anything. It may change and keep the fields.
type upcaster func(fields map[string]any) []stored

// upcasters has one entry for every schema that is no longer written. An entry is never changed: what is stored stays.
func upcasters() map[schema]upcaster {
	return map[schema]upcaster{
		{"OrderPlaced", 1}: func(f map[string]any) []stored {
			return []stored{{schema{"OrderPlaced", 2}, withDefault(f, "priority", "PRIORITY_STANDARD")}}
		},
	}
}

func withDefault(fields map[string]any, name string, value any) map[string]any {
	if _, ok := fields[name]; !ok {
		fields[name] = value
	}
	return fields
}

// upcast follows the chain of upcasters to schemas that have none: the current ones.
func (r *Registry) upcast(s stored) []stored {
	up, old := r.upcasters[s.schema]
	if !old {
		return []stored{s}
	}
	var current []stored
	for _, next := range up(s.fields) {
		current = append(current, r.upcast(next)...)
	}
	return current
}
