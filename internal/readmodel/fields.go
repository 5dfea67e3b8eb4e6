package readmodel

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// field is what rows can be filtered by, and perhaps ordered by.
type field struct {
	name   string // as clients write it
	column string // in SQL
	kind   kind
	values []string // of an enum, by their short names
	sorts  bool
}

// kind is how a field's values are written and compared.
type kind uint8

const (
	stringKind kind = iota // in quotes; = and != only, as are enums and bools
	enumKind               // by short name
	boolKind               // true or false, or the field alone
	intKind
	timeKind // RFC 3339 in quotes
	dateKind // a calendar date in quotes
)

func stringField(name, column string) field { return field{name: name, column: column} }
func boolField(name, column string) field   { return field{name: name, column: column, kind: boolKind} }
func intField(name, column string) field    { return field{name: name, column: column, kind: intKind} }
func timeField(name, column string) field   { return field{name: name, column: column, kind: timeKind} }

func enumField(name string, e protoreflect.Enum) field {
	return field{name: name, column: name, kind: enumKind, values: shorts(e.Descriptor())}
}

// sorted says that rows can be ordered by the field too.
func (f field) sorted() field {
	f.sorts = true
	return f
}

// fields are all that a list can be filtered and ordered by.
type fields []field

func (fs fields) named(name string) (field, bool) {
	i := slices.IndexFunc(fs, func(f field) bool { return f.name == name })
	if i < 0 {
		return field{}, false
	}
	return fs[i], true
}

// names are the names of all fields, or of those that rows can be ordered by.
func (fs fields) names(which func(field) bool) string {
	var names []string
	for _, f := range fs {
		if which(f) {
			names = append(names, f.name)
		}
	}
	return strings.Join(names, ", ")
}

func (f field) operators() []string {
	equal := []string{filtering.FunctionEquals, filtering.FunctionNotEquals}
	switch f.kind {
	case intKind, timeKind, dateKind:
		return append(equal, filtering.FunctionLessThan, filtering.FunctionLessEquals,
			filtering.FunctionGreaterThan, filtering.FunctionGreaterEquals)
	}
	return equal
}

// takes says how the field is compared.
func (f field) takes() string {
	value := map[kind]string{
		stringKind: "a string in quotes",
		enumKind:   "one of " + strings.Join(f.values, ", "),
		boolKind:   "true or false",
		intKind:    "a whole number",
		timeKind:   `a time in quotes, such as "2026-01-31T09:30:00Z"`,
		dateKind:   `a date in quotes, such as "2026-01-31"`,
	}[f.kind]
	return fmt.Sprintf("%s is compared by %s with %s", f.name, strings.Join(f.operators(), " "), value)
}

// value reads what a field is compared with, and tells whether it is of the field's kind.
func (f field) value(e *expr.Expr) (any, bool) {
	word := e.GetIdentExpr().GetName()
	text, quoted := e.GetConstExpr().GetConstantKind().(*expr.Constant_StringValue)
	switch f.kind {
	case stringKind:
		return e.GetConstExpr().GetStringValue(), quoted
	case enumKind:
		return word, slices.Contains(f.values, word)
	case boolKind:
		return word == "true", word == "true" || word == "false"
	case intKind:
		_, ok := e.GetConstExpr().GetConstantKind().(*expr.Constant_Int64Value)
		return e.GetConstExpr().GetInt64Value(), ok
	}
	if call := e.GetCallExpr(); f.kind == timeKind && call.GetFunction() == filtering.FunctionTimestamp && len(call.GetArgs()) == 1 {
		text, quoted = call.GetArgs()[0].GetConstExpr().GetConstantKind().(*expr.Constant_StringValue)
	}
	if !quoted {
		return nil, false
	}
	layout := time.RFC3339
	if f.kind == dateKind {
		layout = time.DateOnly
	}
	t, err := time.Parse(layout, text.StringValue)
	return t, err == nil
}
