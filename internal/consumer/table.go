package consumer

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// column is a field of a row struct as Postgres keeps it.
type column struct {
	name    string
	field   int
	sqlType string
	key     bool
	index   bool
	local   bool
}

// table is a row struct as Postgres keeps it. All values travel as arrays, one for each column, so that any number of
// rows is written by one statement whose text never changes.
type table struct {
	at      pgx.Identifier // with its schema
	name    string         // at, quoted
	columns []column
	// extra are columns of the runtime's own, behind those of the struct.
	extra   []column
	indexes []string
}

var timeType = reflect.TypeFor[time.Time]()

// columnsOf reads the `db` tags of a row struct. A struct that can't be a row is a mistake of whoever wrote it.
func columnsOf(t reflect.Type) []column {
	var columns []column
	for i := range t.NumField() {
		f := t.Field(i)
		parts := strings.Split(f.Tag.Get("db"), ",")
		if parts[0] == "" {
			panic(fmt.Sprintf("%s.%s has no db tag", t, f.Name))
		}
		c := column{name: parts[0], field: i, sqlType: sqlType(f.Type)}
		if c.sqlType == "" {
			panic(fmt.Sprintf("%s.%s can't be kept in a column", t, f.Name))
		}
		for _, option := range parts[1:] {
			switch option {
			case "key":
				c.key = true
			case "index":
				c.index = true
			case "local":
				c.local = true
			default:
				panic(fmt.Sprintf("%s.%s has the unknown option %q", t, f.Name, option))
			}
		}
		columns = append(columns, c)
	}
	return columns
}

// sqlType is the type of a column; floats have none, so that money can't become one.
func sqlType(t reflect.Type) string {
	switch {
	case t == timeType:
		return "timestamptz"
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Bool:
		return "boolean"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint32:
		return "bigint"
	case t.Kind() == reflect.Struct, t.Kind() == reflect.Slice, t.Kind() == reflect.Map:
		return "jsonb"
	}
	return ""
}

func (t *table) all() []column { return slices.Concat(t.columns, t.extra) }

func (t *table) keys() []column {
	return slices.DeleteFunc(t.all(), func(c column) bool { return !c.key })
}

func names(columns []column) []string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = pgx.Identifier{c.name}.Sanitize()
	}
	return out
}

func list(columns []column) string { return strings.Join(names(columns), ", ") }

// create is the statement that makes the table, without its indexes.
func (t *table) create() string {
	var columns []string
	for _, c := range t.all() {
		columns = append(columns, pgx.Identifier{c.name}.Sanitize()+" "+c.sqlType+" NOT NULL")
	}
	return fmt.Sprintf("CREATE TABLE %s (%s, PRIMARY KEY (%s))", t.name, strings.Join(columns, ", "), list(t.keys()))
}

// createIndexes is the statements that make those indexes that are not there yet.
func (t *table) createIndexes() []string {
	var definitions []string
	for _, c := range t.all() {
		if c.index {
			definitions = append(definitions, "("+list([]column{c})+")")
		}
	}
	for _, index := range t.indexes {
		if !strings.HasPrefix(index, "USING ") {
			index = "(" + index + ")"
		}
		definitions = append(definitions, index)
	}
	statements := make([]string, len(definitions))
	for i, definition := range definitions {
		name := pgx.Identifier{fmt.Sprintf("%s_index_%d", t.at[1], i+1)}.Sanitize()
		statements[i] = fmt.Sprintf("CREATE INDEX IF NOT EXISTS %s ON %s %s", name, t.name, definition)
	}
	return statements
}

// unnest is a FROM clause that turns one array for each column into rows.
func unnest(columns []column) string {
	arrays, selected := make([]string, len(columns)), make([]string, len(columns))
	for i, c := range columns {
		arrayType, name := c.sqlType, pgx.Identifier{c.name}.Sanitize()
		selected[i] = name
		if c.sqlType == "jsonb" {
			arrayType, selected[i] = "text", name+"::jsonb AS "+name
		}
		arrays[i] = fmt.Sprintf("$%d::%s[]", i+1, arrayType)
	}
	return fmt.Sprintf("(SELECT %s FROM unnest(%s) AS u(%s)) AS s", strings.Join(selected, ", "), strings.Join(arrays, ", "), list(columns))
}

// upsert writes rows in the order of their keys; on conflict it does what set says.
func (t *table) upsert(set string) string {
	columns := t.all()
	conflict := "NOTHING"
	if set != "" {
		conflict = "UPDATE SET " + set
	}
	return fmt.Sprintf("INSERT INTO %s AS t (%s) SELECT %s FROM %s ORDER BY %s ON CONFLICT (%s) DO %s",
		t.name, list(columns), list(columns), unnest(columns), list(t.keys()), list(t.keys()), conflict)
}

// copy writes rows that are not there yet.
func (t *table) copy(ctx context.Context, tx pgx.Tx, rows [][]any) error {
	var columns []string
	for _, c := range t.all() {
		columns = append(columns, c.name)
	}
	_, err := tx.CopyFrom(ctx, t.at, columns, pgx.CopyFromRows(rows))
	return err
}

// replace sets all columns but the key's and the local ones.
func (t *table) replace() string {
	var set []string
	for _, c := range t.all() {
		if !c.key && !c.local {
			name := pgx.Identifier{c.name}.Sanitize()
			set = append(set, name+" = EXCLUDED."+name)
		}
	}
	return strings.Join(set, ", ")
}

// deletion removes the rows with the keys given as arrays and for which the condition holds.
func (t *table) deletion(condition string) string {
	keys := t.keys()
	var match []string
	for _, name := range names(keys) {
		match = append(match, "t."+name+" = s."+name)
	}
	return fmt.Sprintf("DELETE FROM %s AS t USING %s WHERE %s%s", t.name, unnest(keys), strings.Join(match, " AND "), condition)
}

// value is what is sent for a field.
func value(c column, v reflect.Value) (any, error) {
	switch c.sqlType {
	case "timestamptz":
		return v.Interface(), nil
	case "text":
		return v.String(), nil
	case "boolean":
		return v.Bool(), nil
	case "bigint":
		if v.CanInt() {
			return v.Int(), nil
		}
		return int64(v.Uint()), nil
	}
	b, err := json.Marshal(v.Interface())
	if err != nil {
		return nil, fmt.Errorf("column %s: %w", c.name, err)
	}
	return string(b), nil
}

// arrays turns rows, each with a value for every column, into one array for each column.
func arrays(columns []column, rows [][]any) []any {
	out := make([]any, len(columns))
	for i, c := range columns {
		switch c.sqlType {
		case "timestamptz":
			out[i] = typedArray[time.Time](rows, i)
		case "boolean":
			out[i] = typedArray[bool](rows, i)
		case "bigint":
			out[i] = typedArray[int64](rows, i)
		default:
			out[i] = typedArray[string](rows, i)
		}
	}
	return out
}

func typedArray[T any](rows [][]any, i int) []T {
	a := make([]T, len(rows))
	for n, r := range rows {
		a[n] = r[i].(T)
	}
	return a
}

// fields are the values of a struct's columns.
func fields(columns []column, row reflect.Value) ([]any, error) {
	out := make([]any, len(columns))
	for i, c := range columns {
		v, err := value(c, row.Field(c.field))
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

// targets are where a row's columns are scanned to.
func targets(columns []column, row reflect.Value) []any {
	out := make([]any, len(columns))
	for i, c := range columns {
		out[i] = row.Field(c.field).Addr().Interface()
	}
	return out
}

// Columns lists the columns of a row struct for a SELECT whose rows are scanned by pgx.RowToStructByName.
func Columns[R any]() string { return list(columnsOf(reflect.TypeFor[R]())) }

// querier is a pool, a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// utc puts the times of a row into UTC: Postgres keeps the instant only.
func utc(columns []column, row reflect.Value) {
	for _, c := range columns {
		if c.sqlType == "timestamptz" {
			t := row.Field(c.field).Addr().Interface().(*time.Time)
			*t = t.UTC()
		}
	}
}

// postgresTick is the finest difference in time that Postgres keeps.
const postgresTick = time.Microsecond
