package readmodel

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// Report says what a report's lines look like.
type Report struct {
	Name    string
	Columns []Column
}

// Column is one column of a report.
type Column struct {
	Name string
	Type ColumnType

	key      bool
	currency string // of money: the column that says in which currency
}

// ColumnType is the type of a column's cells.
type ColumnType uint8

const (
	StringColumn ColumnType = iota + 1 // string
	Int64Column                        // int64
	DateColumn                         // time.Time at 0:00 UTC
	MoneyColumn                        // [Money]
)

// Money is an amount in the minor units of a currency.
type Money struct {
	Currency string
	Amount   int64
}

// Cell is a string, an int64, a time.Time or a [Money], as its column says.
type Cell any

// report is what is needed to read a report's table without knowing its type.
type report struct {
	Report
	of     consumer.Readable
	lines  func(consumer.Place) string
	fields fields  // every column
	order  sorting // by the key
	keys   []reflect.Type
}

// derivedReport is a report with what the fold R runs it by.
type derivedReport[R any] struct {
	report
	derived consumer.Derived[R]
	replay  consumer.Replay
}

// reportOf reads the columns off the fields of C: string, int64 and time.Time (a day), and an int64 tagged
// `money:"<column of its currency>"`. It panics where C has
// another field, or no key.
func reportOf[R, C any](r *consumer.Report[R, C]) derivedReport[R] {
	d := derivedReport[R]{derived: r, replay: r.Replay(), report: report{
		Report: Report{Name: r.Name}, of: r, lines: r.Lines,
	}}
	t := reflect.TypeFor[C]()
	for i := range t.NumField() {
		c, err := columnOf(t.Field(i))
		if err != nil {
			panic(fmt.Errorf("report %s: %w", r.Name, err))
		}
		d.add(c)
	}
	if len(d.order) == 0 {
		panic(fmt.Errorf("report %s: no key column", r.Name))
	}
	for _, c := range d.Columns {
		if c.currency != "" && !slices.ContainsFunc(d.Columns, func(o Column) bool { return o.Name == c.currency }) {
			panic(fmt.Errorf("report %s: column %s: no column %s", r.Name, c.Name, c.currency))
		}
	}
	return d
}

// add adds a column, with what it means to filters and to the order of the lines.
func (r *report) add(c Column) {
	column := pgx.Identifier{c.Name}.Sanitize()
	r.Columns = append(r.Columns, c)
	r.fields = append(r.fields, field{name: c.Name, column: column, kind: map[ColumnType]kind{
		StringColumn: stringKind, Int64Column: intKind, MoneyColumn: intKind, DateColumn: dateKind,
	}[c.Type]})
	if c.key {
		r.order = append(r.order, sortColumn{column: column})
		r.keys = append(r.keys, c.goType())
	}
}

func columnOf(f reflect.StructField) (Column, error) {
	name, options, _ := strings.Cut(f.Tag.Get("db"), ",")
	c := Column{Name: name, key: options == "key", currency: f.Tag.Get("money")}
	switch {
	case c.currency != "" && f.Type.Kind() == reflect.Int64:
		c.Type = MoneyColumn
	case f.Type == reflect.TypeFor[time.Time]():
		c.Type = DateColumn
	case f.Type.Kind() == reflect.String:
		c.Type = StringColumn
	case f.Type.Kind() == reflect.Int64:
		c.Type = Int64Column
	default:
		return Column{}, fmt.Errorf("field %s: no report has columns of type %s", f.Name, f.Type)
	}
	return c, nil
}

// ListReports returns every report, by name.
func (q *Queries) ListReports() []Report {
	var list []Report
	for _, name := range slices.Sorted(maps.Keys(q.reports)) {
		list = append(list, q.reports[name].Report)
	}
	return list
}

// RunReport returns a page of a report's lines in the order of its key columns, and the token of the next page: empty
// on the last. They can be filtered by any column; one of money is compared as a number of minor units. Where there is no
// such report it fails with the fault REPORT_NOT_FOUND.
func (q *Queries) RunReport(ctx context.Context, name string, p Page, after eventlog.Position) (Report, [][]Cell, string, error) {
	r, ok := q.reports[name]
	if !ok {
		return Report{}, nil, "", fault.Missing(typev1.ErrorReason_ERROR_REASON_REPORT_NOT_FOUND, "report", name)
	}
	list := listing{"report", name, p.Filter}
	var cursor []json.RawMessage
	limit, err := q.begin(list, p, &cursor)
	if err != nil {
		return Report{}, nil, "", err
	}
	query, args, err := r.query(p.Filter, cursor, limit+1)
	if err != nil {
		return Report{}, nil, "", err
	}
	at, err := q.at(ctx, r.of, "", after)
	if err != nil {
		return Report{}, nil, "", err
	}
	sql := fmt.Sprintf("WITH lines AS (%s) %s", r.lines(at), query)
	lines, err := collect(ctx, q, r.scan, sql, args...)
	if err != nil {
		return Report{}, nil, "", fmt.Errorf("run report %s: %w", name, err)
	}
	lines, next, err := endPage(q, list, lines, limit, r.cursor)
	return r.Report, lines, next, err
}

// query returns the SQL that takes from lines those after the cursor, which is empty or has a value for each key column.
func (r report) query(filter string, cursor []json.RawMessage, limit int) (string, []any, error) {
	where, err := r.fields.filter(filter)
	if err != nil {
		return "", nil, err
	}
	if len(cursor) > 0 {
		values, err := place(cursor, r.keys)
		if err != nil {
			return "", nil, err
		}
		where.sql += " AND " + r.order.after(values, &where)
	}
	columns := make([]string, len(r.fields))
	for i, f := range r.fields {
		columns[i] = f.column
	}
	sql := fmt.Sprintf(`SELECT %s FROM lines WHERE %s ORDER BY %s LIMIT %s`,
		strings.Join(columns, ", "), where.sql, r.order.sql(), where.param(limit))
	return sql, where.args, nil
}

func (c Column) goType() reflect.Type {
	switch c.Type {
	case StringColumn:
		return reflect.TypeFor[string]()
	case DateColumn:
		return reflect.TypeFor[time.Time]()
	}
	return reflect.TypeFor[int64]()
}

// scan reads a line, all columns of which were selected in their order.
func (r report) scan(row pgx.CollectableRow) ([]Cell, error) {
	targets := make([]any, len(r.Columns))
	for i, c := range r.Columns {
		targets[i] = reflect.New(c.goType()).Interface()
	}
	if err := row.Scan(targets...); err != nil {
		return nil, err
	}
	cells := make([]Cell, len(targets))
	values := map[string]any{}
	for i, c := range r.Columns {
		cells[i] = reflect.ValueOf(targets[i]).Elem().Interface()
		values[c.Name] = cells[i]
	}
	for i, c := range r.Columns {
		switch v := cells[i].(type) {
		case time.Time:
			cells[i] = v.UTC()
		case int64:
			if c.Type == MoneyColumn {
				currency, _ := values[c.currency].(string)
				cells[i] = Money{Currency: currency, Amount: v}
			}
		}
	}
	return cells, nil
}

// cursor is the place of a line: the values of its key columns.
func (r report) cursor(line []Cell) any {
	var keys []any
	for i, c := range r.Columns {
		if c.key {
			keys = append(keys, line[i])
		}
	}
	return keys
}
