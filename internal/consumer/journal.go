package consumer

import (
	"context"
	"reflect"

	"github.com/jackc/pgx/v5"
)

// Table is the table of the rows in the live build, quoted and with its schema.
func (j *Journal[J]) Table() string { return tableName(buildName(j.Name, j.Version), j.Name) }

// Model is the journal for the runtime.
func (j *Journal[J]) Model() Model {
	t := &table{name: j.Table(), columns: columnsOf(reflect.TypeFor[J]())}
	return Model{
		name: j.Name, build: buildName(j.Name, j.Version), categories: j.Categories,
		shape: &journaling[J]{journal: j, table: t},
	}
}

type journaling[J any] struct {
	journal *Journal[J]
	table   *table
}

func (j *journaling[J]) relations() []relation {
	return []relation{{j.journal.Name, j.journal.Version, j.table}}
}

func (j *journaling[J]) apply(_ context.Context, b *batch) error {
	var written [][]any
	for _, e := range b.events {
		if _, parked := b.poisoned[e.key]; parked {
			continue
		}
		rows, err := j.rows(b, e)
		if err != nil {
			b.park(e.key, e.Position, err)
			continue
		}
		written = append(written, rows...)
	}
	if len(written) > 0 {
		// A row that is there already was written from the same event.
		b.writes.Queue(j.table.upsert(""), arrays(j.table.all(), written)...)
	}
	return nil
}

func (j *journaling[J]) rows(b *batch, e decoded) (rows [][]any, err error) {
	if e.err != nil {
		return nil, e.err
	}
	b.observe(e.Type, func() {
		perr := guarded(func() {
			for _, m := range e.messages() {
				for _, row := range j.journal.Entries(m) {
					var values []any
					if values, err = fields(j.table.columns, reflect.ValueOf(&row).Elem()); err != nil {
						return
					}
					rows = append(rows, values)
				}
			}
		})
		if perr != nil {
			err = perr
		}
	})
	return rows, err
}

func (j *journaling[J]) backfill(context.Context, pgx.Tx, string) error { return nil }
