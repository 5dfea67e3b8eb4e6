package readmodel

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"go.einride.tech/aip/ordering"

	"github.com/purserhq/purser/internal/fault"
)

// sorting is an order in which no two rows have the same place, because its columns include the rows' key. So the rows
// of the next page are those behind the last one's place, and finding them costs the same on every page.
type sorting []sortColumn

type sortColumn struct {
	column string // in SQL
	desc   bool
}

// order reads what rows are to be ordered by, as AIP-132 has it. Among rows that are equal by that they follow the list's
// own order, in the direction of the last field, which is the one that an index has.
func (fs fields) order(text string, own sorting) (sorting, error) {
	if strings.TrimSpace(text) == "" {
		return own, nil
	}
	can := fs.names(func(f field) bool { return f.sorts })
	var by ordering.OrderBy
	if err := by.UnmarshalString(text); err != nil {
		return nil, fault.InvalidField("order_by", "must be fields with asc or desc, divided by commas; the fields are %s", can)
	}
	var s sorting
	for _, f := range by.Fields {
		field, ok := fs.named(f.Path)
		if !ok || !field.sorts {
			return nil, fault.InvalidField("order_by", "can't be %s; the fields are %s", f.Path, can)
		}
		if s.has(field.column) {
			return nil, fault.InvalidField("order_by", "must not name %s twice", f.Path)
		}
		s = append(s, sortColumn{field.column, f.Desc})
	}
	last := s[len(s)-1]
	for _, c := range own {
		if s.has(own[len(own)-1].column) { // nothing is left to decide
			break
		}
		if !s.has(c.column) {
			s = append(s, sortColumn{c.column, last.desc})
		}
	}
	return s, nil
}

func (s sorting) has(column string) bool {
	for _, c := range s {
		if c.column == column {
			return true
		}
	}
	return false
}

// sql is what follows ORDER BY.
func (s sorting) sql() string {
	parts := make([]string, len(s))
	for i, c := range s {
		parts[i] = c.column
		if c.desc {
			parts[i] += " DESC"
		}
	}
	return strings.Join(parts, ", ")
}

// after adds to a condition that a row comes after a place, which has a value for each column. Columns of one direction are
// compared as one row, which is what Postgres finds the place in an index by.
func (s sorting) after(place []any, c *condition) string {
	run := 1
	for run < len(s) && s[run].desc == s[0].desc {
		run++
	}
	columns, params := make([]string, run), make([]string, run)
	for i := range run {
		columns[i], params[i] = s[i].column, c.param(place[i])
	}
	operator := ">"
	if s[0].desc {
		operator = "<"
	}
	left, right := "("+strings.Join(columns, ", ")+")", "("+strings.Join(params, ", ")+")"
	if run == len(s) {
		return left + " " + operator + " " + right
	}
	rest := s[run:].after(place[run:], c)
	return fmt.Sprintf("%s %s= %s AND (%s %s %s OR %s)", left, operator, right, left, operator, right, rest)
}

// place reads a cursor, whose values are of types. It fails with a fault on page_token: the token was made by us, but
// perhaps for another version of the list.
func place(cursor []json.RawMessage, types []reflect.Type) ([]any, error) {
	stale := fault.InvalidField("page_token", "is of another version of this list; start again")
	if len(cursor) != len(types) {
		return nil, stale
	}
	values := make([]any, len(types))
	for i, t := range types {
		v := reflect.New(t)
		if err := json.Unmarshal(cursor[i], v.Interface()); err != nil {
			return nil, stale
		}
		values[i] = v.Elem().Interface()
	}
	return values, nil
}
