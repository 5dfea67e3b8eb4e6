package readmodel

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
)

// list is how the rows of a fold are given out page by page.
type list struct {
	name string // in page tokens and errors
	// shown is the condition for a row to be on the list.
	shown string
	// search is the condition that a row fits what is searched for, which is the one value in it; "": can't be searched.
	search string
	fields fields
	// order is that of the rows unless another is asked for; its last column is their key.
	order sorting
}

// listRows returns a page of a list, and the token of the next page: empty on the last. A row whose place in the order
// does not change while pages are read is on exactly one of them, whatever is added or changed meanwhile.
func listRows[R any](ctx context.Context, q *Queries, f *consumer.Fold[R], l *list, p Page, after eventlog.Position) ([]R, string, error) {
	query := listing{l.name, p.Filter, p.OrderBy, p.Search}
	var cursor []json.RawMessage
	limit, err := q.begin(query, p, &cursor)
	if err != nil {
		return nil, "", err
	}
	order, err := l.fields.order(p.OrderBy, l.order)
	if err != nil {
		return nil, "", err
	}
	where, err := l.fields.filter(p.Filter)
	if err != nil {
		return nil, "", err
	}
	conditions := []string{l.shown, where.sql}
	if words := searched(p.Search); l.search != "" && words != "" {
		conditions = append(conditions, fmt.Sprintf(l.search, where.param(words)))
	}
	columns := columnsOf[R](order)
	if len(cursor) > 0 {
		values, err := place(cursor, columns.types)
		if err != nil {
			return nil, "", err
		}
		conditions = append(conditions, order.after(values, &where))
	}
	at, err := q.at(ctx, f, "", after)
	if err != nil {
		return nil, "", err
	}
	sql := fmt.Sprintf(`SELECT %s FROM %s WHERE %s ORDER BY %s LIMIT %s`, consumer.Columns[R](), at.Table,
		strings.Join(conditions, " AND "), order.sql(), where.param(limit+1))
	rows, err := many[R](ctx, q, sql, where.args...)
	if err != nil {
		return nil, "", fmt.Errorf("list %s: %w", l.name, err)
	}
	return endPage(q, query, rows, limit, func(row R) any { return columns.of(row) })
}

// rowColumns are some columns of a row struct.
type rowColumns struct {
	indexes []int
	types   []reflect.Type
}

// columnsOf finds the fields of the columns that rows are ordered by. It panics where R has none of the name.
func columnsOf[R any](order sorting) rowColumns {
	t := reflect.TypeFor[R]()
	indexes := map[string]int{}
	for i := range t.NumField() {
		column, _, _ := strings.Cut(t.Field(i).Tag.Get("db"), ",")
		indexes[column] = i
	}
	var c rowColumns
	for _, o := range order {
		i, ok := indexes[o.column]
		if !ok {
			panic(fmt.Sprintf("%s has no column %s to be ordered by", t, o.column))
		}
		c.indexes, c.types = append(c.indexes, i), append(c.types, t.Field(i).Type)
	}
	return c
}

// of is the place of a row.
func (c rowColumns) of(row any) []any {
	values := make([]any, len(c.indexes))
	for i, n := range c.indexes {
		values[i] = reflect.ValueOf(row).Field(n).Interface()
	}
	return values
}

// searched turns what somebody types into a search box into a text query of Postgres: every word, of which the last may
// be the beginning of one. What is no word looks for nothing.
func searched(text string) string {
	words := strings.Fields(text)
	for i, w := range words {
		words[i] = "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(w) + "'"
	}
	if len(words) == 0 {
		return ""
	}
	return strings.Join(words, " & ") + ":*"
}
