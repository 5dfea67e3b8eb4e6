package consumer

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// contributionsColumn counts the rows' contributions to a line of a report; one without any is deleted.
const contributionsColumn = "_contributions"

func (r *Report[R, C]) in(build string) derivation[R] {
	// A line has a row for each partition that contributes to it, so that no two ever wait for each other.
	t := newTable(build, derivedName(r.Name, r.Version), columnsOf(reflect.TypeFor[C]()),
		column{name: partitionColumn, sqlType: "bigint", key: true}, column{name: contributionsColumn, sqlType: "bigint"})
	for _, c := range t.columns {
		if !c.key && c.sqlType != "bigint" {
			panic(fmt.Sprintf("report %s: %s can't be added up", r.Name, c.name))
		}
	}
	return &summing[R, C]{r, t}
}

// Lines is a query for the lines of the report where it lies: what the partitions have, added up.
func (r *Report[R, C]) Lines(p Place) string {
	var keys, all []string
	for _, c := range columnsOf(reflect.TypeFor[C]()) {
		name := pgx.Identifier{c.name}.Sanitize()
		if c.key {
			keys, all = append(keys, name), append(all, name)
		} else {
			all = append(all, fmt.Sprintf("sum(%s)::bigint AS %[1]s", name))
		}
	}
	return fmt.Sprintf("SELECT %s FROM %s GROUP BY %s", strings.Join(all, ", "), p.Table, strings.Join(keys, ", "))
}

type summing[R, C any] struct {
	report *Report[R, C]
	table  *table
}

func (s *summing[R, C]) relation() relation {
	return relation{s.report.Name, s.report.Version, s.table}
}

func (s *summing[R, C]) begin() difference[R] {
	return &sums[R, C]{summing: s, lines: map[string][]any{}}
}

// sums is what is to be added to each line of a report.
type sums[R, C any] struct {
	*summing[R, C]
	lines map[string][]any // the values of all columns, by those of the key
}

func (s *sums[R, C]) before(key string, row R) error { return s.contribute(key, row, -1) }
func (s *sums[R, C]) after(key string, row R) error  { return s.contribute(key, row, 1) }

func (s *sums[R, C]) contribute(key string, row R, sign int64) error {
	partition := int64(partitionOf(key))
	for _, c := range s.report.Contribute(row) {
		values, err := fields(s.table.columns, reflect.ValueOf(&c).Elem())
		if err != nil {
			return err
		}
		for i, col := range s.table.columns {
			if !col.key {
				values[i] = sign * values[i].(int64)
			}
		}
		if err := s.plus(append(values, partition, sign)); err != nil {
			return err
		}
	}
	return nil
}

// plus adds values to their line.
func (s *sums[R, C]) plus(values []any) error {
	line, err := lineKey(s.table.all(), values)
	if err != nil {
		return err
	}
	have, ok := s.lines[line]
	if !ok {
		s.lines[line] = values
		return nil
	}
	for i, col := range s.table.all() {
		if !col.key {
			have[i] = have[i].(int64) + values[i].(int64)
		}
	}
	return nil
}

func (s *sums[R, C]) add(other difference[R]) {
	for _, values := range other.(*sums[R, C]).lines {
		_ = s.plus(values) // its key was made before
	}
}

func (s *sums[R, C]) write(b *pgx.Batch) {
	columns := s.table.all()
	var rows, emptied [][]any
	for _, line := range slices.Sorted(maps.Keys(s.lines)) {
		values := s.lines[line]
		changes := false
		for i, c := range columns {
			changes = changes || !c.key && values[i].(int64) != 0
		}
		if !changes {
			continue
		}
		rows = append(rows, values)
		if values[len(values)-1].(int64) < 0 {
			emptied = append(emptied, pick(columns, values, func(c column) bool { return c.key }))
		}
	}
	if len(rows) == 0 {
		return
	}
	var set string
	for _, c := range columns {
		if name := (pgx.Identifier{c.name}).Sanitize(); !c.key {
			set += fmt.Sprintf(", %s = t.%s + EXCLUDED.%s", name, name, name)
		}
	}
	b.Queue(s.table.upsert(set[2:]), arrays(columns, rows)...)
	if len(emptied) > 0 {
		b.Queue(s.table.deletion(fmt.Sprintf(" AND t.%s = 0", contributionsColumn)), arrays(s.table.keys(), emptied)...)
	}
}

func (l *List[R, E]) in(build string) derivation[R] {
	t := newTable(build, derivedName(l.Name, l.Version), columnsOf(reflect.TypeFor[E]()),
		column{name: "key", sqlType: "text", key: true}, column{name: partitionColumn, sqlType: "bigint"})
	t.indexes = l.Indexes
	return &listing[R, E]{l, t}
}

type listing[R, E any] struct {
	list  *List[R, E]
	table *table
}

func (l *listing[R, E]) relation() relation { return relation{l.list.Name, l.list.Version, l.table} }

func (l *listing[R, E]) begin() difference[R] {
	return &entries[R, E]{listing: l, was: map[string][]any{}, is: map[string][]any{}}
}

// entries is what rows wanted on a list and what they want now.
type entries[R, E any] struct {
	*listing[R, E]
	was, is map[string][]any // the values of all columns, by those of the key
}

func (d *entries[R, E]) before(key string, row R) error { return d.want(d.was, key, row) }
func (d *entries[R, E]) after(key string, row R) error  { return d.want(d.is, key, row) }

func (d *entries[R, E]) want(into map[string][]any, key string, row R) error {
	for _, e := range d.list.Entries(row) {
		values, err := fields(d.table.columns, reflect.ValueOf(&e).Elem())
		if err != nil {
			return err
		}
		values = append(values, key, int64(partitionOf(key)))
		line, err := lineKey(d.table.all(), values)
		if err != nil {
			return err
		}
		into[line] = values
	}
	return nil
}

func (d *entries[R, E]) add(other difference[R]) {
	o := other.(*entries[R, E])
	maps.Copy(d.was, o.was)
	maps.Copy(d.is, o.is)
}

func (d *entries[R, E]) write(b *pgx.Batch) {
	columns := d.table.all()
	shared := func(c column) bool { return !c.local }
	var gone, wanted [][]any
	for _, line := range slices.Sorted(maps.Keys(d.was)) {
		if _, ok := d.is[line]; !ok {
			gone = append(gone, pick(columns, d.was[line], func(c column) bool { return c.key }))
		}
	}
	for _, line := range slices.Sorted(maps.Keys(d.is)) {
		was, ok := d.was[line]
		if !ok || !reflect.DeepEqual(pick(columns, was, shared), pick(columns, d.is[line], shared)) {
			wanted = append(wanted, d.is[line])
		}
	}
	if len(gone) > 0 {
		b.Queue(d.table.deletion(""), arrays(d.table.keys(), gone)...)
	}
	if len(wanted) > 0 {
		b.Queue(d.table.upsert(d.table.replace()), arrays(columns, wanted)...)
	}
}

// pick is the values of some of the columns.
func pick(columns []column, values []any, which func(column) bool) []any {
	var out []any
	for i, c := range columns {
		if which(c) {
			out = append(out, values[i])
		}
	}
	return out
}

// lineKey tells lines apart by the values of their key, and sorts them the same way in every process, so that
// transactions that touch several of them never wait for each other in a circle.
func lineKey(columns []column, values []any) (string, error) {
	b, err := json.Marshal(pick(columns, values, func(c column) bool { return c.key }))
	return string(b), err
}
