package consumer

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// compared is a row that is not stored as it should be.
type compared struct {
	key            []string // the values of the key's columns
	stored, wanted bool     // there is such a row, there should be one
	columns        []comparedColumn
}

// comparedColumn is a column of a row that is stored and should be, but with another value.
type comparedColumn struct{ name, stored, wanted string }

// compare finds what differs between the rows that should be there and those that a condition selects. Postgres does the
// comparing, on values that are sent as they are when they are written, so that nothing differs which it would store
// alike. Local columns are nobody's but the reader's.
func (t *table) compare(ctx context.Context, tx pgx.Tx, rows [][]any, where string, args ...any) ([]compared, error) {
	return t.compareBy(ctx, tx, "FULL", rows, where, args...)
}

// compareGiven finds what differs of the rows that should be there, whatever else is.
func (t *table) compareGiven(ctx context.Context, tx pgx.Tx, rows [][]any) ([]compared, error) {
	return t.compareBy(ctx, tx, "LEFT", rows, "")
}

func (t *table) compareBy(ctx context.Context, tx pgx.Tx, join string, rows [][]any, where string, args ...any) ([]compared, error) {
	columns := t.all()
	var match, keys, others, differ, stored, wanted []string
	for _, c := range columns {
		name := pgx.Identifier{c.name}.Sanitize()
		switch {
		case c.key:
			match = append(match, "s."+name+" = t."+name)
			if c.name != partitionColumn {
				keys = append(keys, "coalesce(s."+name+", t."+name+")::text")
			}
		case !c.local:
			others = append(others, c.name)
			differ = append(differ, "s."+name+" IS DISTINCT FROM t."+name)
			stored = append(stored, "t."+name+"::text")
			wanted = append(wanted, "s."+name+"::text")
		}
	}
	array := func(of []string, sqlType string) string {
		return "ARRAY[" + strings.Join(of, ", ") + "]::" + sqlType + "[]"
	}
	sql := fmt.Sprintf(`SELECT %s, t._there IS NOT NULL, s._there IS NOT NULL, %s, %s, %s
		FROM (SELECT *, true AS _there FROM %s) AS s %s JOIN (SELECT *, true AS _there FROM %s %s) AS t ON %s
		WHERE t._there IS NULL OR s._there IS NULL OR true = ANY (%s) ORDER BY 1`,
		array(keys, "text"), array(differ, "boolean"), array(stored, "text"), array(wanted, "text"),
		unnest(columns), join, t.name, renumbered(where, len(columns)), strings.Join(match, " AND "), array(differ, "boolean"))
	result, err := tx.Query(ctx, sql, append(arrays(columns, rows), args...)...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(result, func(row pgx.CollectableRow) (c compared, err error) {
		var differs []bool
		var was, is []*string
		if err := row.Scan(&c.key, &c.stored, &c.wanted, &differs, &was, &is); err != nil {
			return c, err
		}
		for i, d := range differs {
			if d && c.stored && c.wanted {
				c.columns = append(c.columns, comparedColumn{others[i], text(was[i]), text(is[i])})
			}
		}
		return c, nil
	})
}

// renumbered puts the one argument of a condition behind others.
func renumbered(where string, before int) string {
	return strings.ReplaceAll(where, "$1", fmt.Sprintf("$%d", before+1))
}

func text(s *string) string {
	if s == nil {
		return "NULL"
	}
	return *s
}

// keyColumn is the column by which the rows of a key of the log are found, in a fold or a journal.
func (t *table) keyColumn() column { return t.keys()[0] }

// counts tells how many rows are stored of each key of the log.
func (t *table) counts(ctx context.Context, tx pgx.Tx) (map[string]int, error) {
	key := pgx.Identifier{t.keyColumn().name}.Sanitize()
	rows, err := tx.Query(ctx, fmt.Sprintf("SELECT %s, count(*) FROM %s GROUP BY 1", key, t.name))
	if err != nil {
		return nil, err
	}
	counts := map[string]int{}
	var k string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&k, &n}, func() error { counts[k] = n; return nil })
	return counts, err
}

// ofKeys selects rows of some keys of the log, given as its one argument.
func (t *table) ofKeys() string {
	return fmt.Sprintf("WHERE %s = ANY ($1)", pgx.Identifier{t.keyColumn().name}.Sanitize())
}
