package consumer

import (
	"context"
	"fmt"
	"reflect"

	"github.com/jackc/pgx/v5"
)

// Model is the journal for the runtime.
func (j *Journal[J]) Model() Model {
	j.in("") // panics where J can't be a row
	return Model{name: j.Name, version: j.Version, categories: j.Categories, open: func(build string) shape { return j.in(build) }}
}

// in is the journal on the table of a build.
func (j *Journal[J]) in(build string) *journaling[J] {
	t := newTable(build, j.Name, columnsOf(reflect.TypeFor[J]()))
	keys := t.keys()
	if len(keys) == 0 || keys[0].sqlType != "text" {
		panic(fmt.Sprintf("journal %s: the first key of its rows must be a string", j.Name))
	}
	return &journaling[J]{journal: j, table: t, key: keys[0]}
}

type journaling[J any] struct {
	journal *Journal[J]
	table   *table
	key     column // holds the key of the event
}

func (j *journaling[J]) relations() []relation {
	return []relation{{j.journal.Name, j.journal.Version, j.table}}
}

func (j *journaling[J]) apply(ctx context.Context, b *batch) error {
	var written [][]any
	for _, e := range b.events {
		if _, parked := b.poisoned[e.key]; parked || e.err == nil && len(e.Messages) == 0 {
			continue
		}
		var rows [][]any
		var err error
		b.observe(e.Type, func() { rows, err = j.rows(e) })
		if err != nil {
			b.park(e.key, e.Position, err)
			continue
		}
		written = append(written, rows...)
	}
	if len(written) > 0 {
		if b.filling {
			return j.table.copy(ctx, b.tx, written)
		}
		// A row that is there already was written from the same event.
		b.writes.Queue(j.table.upsert(""), arrays(j.table.all(), written)...)
	}
	return nil
}

func (j *journaling[J]) backfill(context.Context, pgx.Tx, string, int) error { return nil }
