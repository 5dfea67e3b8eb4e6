package consumer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/purserhq/purser/internal/eventlog"
)

// revisionsColumn is where a row remembers the last revision of each stream that it has folded.
const revisionsColumn = "_revisions"

// Model is the fold, with what is derived from it, for the runtime.
func (f *Fold[R]) Model(derived ...Derived[R]) Model {
	m := Model{
		name: f.Name, version: f.Version, categories: f.Categories,
		open: func(build string) shape { return f.in(build, derived...) },
	}
	for _, d := range derived {
		m.derived = append(m.derived, d.in("").relation().name)
	}
	f.in("") // panics where R can't be a row
	return m
}

// in is the fold on the tables of a build.
func (f *Fold[R]) in(build string, derived ...Derived[R]) *folding[R] {
	t := newTable(build, f.Name, columnsOf(reflect.TypeFor[R]()),
		column{name: revisionsColumn, sqlType: "jsonb"}, column{name: partitionColumn, sqlType: "bigint"})
	t.indexes = f.Indexes
	keys := t.keys()
	if len(keys) != 1 || keys[0].sqlType != "text" {
		panic(fmt.Sprintf("fold %s: its row needs one key, a string", f.Name))
	}
	shape := &folding[R]{fold: f, table: t, key: keys[0]}
	for _, d := range derived {
		shape.derived = append(shape.derived, d.in(build))
	}
	return shape
}

// Derived is a report or a list: what follows from the rows of a fold.
type Derived[R any] interface {
	// in is the report or list on the table of a build.
	in(build string) derivation[R]
}

type derivation[R any] interface {
	relation() relation
	// begin returns a difference to which rows are added as they were and as they are.
	begin() difference[R]
}

// difference collects how what is derived changes with its rows.
type difference[R any] interface {
	before(key string, row R) error
	after(key string, row R) error
	// add takes over what another difference of the same kind has collected.
	add(other difference[R])
	write(b *pgx.Batch)
	// wanted is what there should be where rows were only added as they are: the values of all columns.
	wanted() [][]any
}

type folding[R any] struct {
	fold    *Fold[R]
	table   *table
	key     column
	derived []derivation[R]
}

// kept is a row and how far its streams are folded into it.
type kept[R any] struct {
	row       R
	revisions map[string]eventlog.Revision
}

func (f *folding[R]) relations() []relation {
	all := []relation{{f.fold.Name, f.fold.Version, f.table}}
	for _, d := range f.derived {
		all = append(all, d.relation())
	}
	return all
}

// apply folds a batch: it reads the rows that the batch touches, folds in memory, and writes rows and differences.
func (f *folding[R]) apply(ctx context.Context, b *batch) error {
	byKey := map[string][]decoded{}
	for _, e := range b.events {
		byKey[e.key] = append(byKey[e.key], e)
	}
	keys := slices.Sorted(maps.Keys(byKey))
	rows, err := f.fetch(ctx, b.tx, keys)
	if err != nil {
		return err
	}
	differences := make([]difference[R], len(f.derived))
	for i, d := range f.derived {
		differences[i] = d.begin()
	}
	var written [][]any
	for _, key := range keys {
		k, stored := rows[key]
		if !stored {
			k = f.empty(key)
		}
		values, err := f.applyKey(ctx, b, key, k, stored, byKey[key], differences)
		if err != nil {
			return err
		}
		if values != nil {
			written = append(written, values)
		}
	}
	if b.filling {
		if written, err = f.copyNew(ctx, b, rows, written); err != nil {
			return err
		}
	}
	if len(written) > 0 {
		b.writes.Queue(f.table.upsert(f.table.replace()), arrays(f.table.all(), written)...)
	}
	for _, d := range differences {
		d.write(b.writes)
	}
	return nil
}

// copyNew writes the rows that were not stored yet by COPY, and returns the others.
func (f *folding[R]) copyNew(ctx context.Context, b *batch, stored map[string]*kept[R], written [][]any) (others [][]any, err error) {
	var fresh [][]any
	for _, values := range written {
		if _, known := stored[values[f.key.field].(string)]; known {
			others = append(others, values)
		} else {
			fresh = append(fresh, values)
		}
	}
	if len(fresh) > 0 {
		err = f.table.copy(ctx, b.tx, fresh)
	}
	return others, err
}

// applyKey folds the events of one key, and returns the row's values where it changed. A key that turns out to be
// poisoned is left as it was before the event that can't be applied.
func (f *folding[R]) applyKey(ctx context.Context, b *batch, key string, k *kept[R], stored bool, events []decoded, differences []difference[R]) ([]any, error) {
	var befores []difference[R]
	if stored {
		// Derived now, because folding may change what the row's slices and maps hold.
		var err error
		if befores, err = f.derive(func(d difference[R]) error { return d.before(key, k.row) }); err != nil {
			b.park(key, events[0].Position, err)
			return nil, nil
		}
	}
	k, changed, bad, err := f.foldKey(ctx, b, key, k, events)
	if err != nil {
		return nil, err
	}
	if bad != nil {
		b.park(key, bad.at.Position, bad.cause)
		if bad.index == 0 {
			return nil, nil
		}
		// Once more, without it: a fold that fails may have changed half a row.
		rows, err := f.fetch(ctx, b.tx, []string{key})
		if err != nil {
			return nil, err
		}
		k, stored := rows[key]
		if !stored {
			k = f.empty(key)
		}
		return f.applyKey(ctx, b, key, k, stored, events[:bad.index], differences)
	}
	if !changed {
		return nil, nil
	}
	afters, err := f.derive(func(d difference[R]) error { return d.after(key, k.row) })
	if err != nil {
		b.park(key, events[0].Position, err)
		return nil, nil
	}
	values, err := f.values(k)
	if err != nil {
		b.park(key, events[0].Position, err)
		return nil, nil
	}
	for i, d := range differences {
		if befores != nil {
			d.add(befores[i])
		}
		d.add(afters[i])
	}
	return values, nil
}

// derive begins a difference for each report and list, and adds a row to it.
func (f *folding[R]) derive(add func(difference[R]) error) ([]difference[R], error) {
	all := make([]difference[R], len(f.derived))
	var failed error
	err := guarded(func() {
		for i, d := range f.derived {
			all[i] = d.begin()
			failed = errors.Join(failed, add(all[i]))
		}
	})
	return all, errors.Join(err, failed)
}

// badEvent is one of a key's events that can't be applied.
type badEvent struct {
	index int
	at    decoded
	cause error
}

// foldKey folds events into a row, and tells whether any was new to it, and which one it could not get past.
func (f *folding[R]) foldKey(ctx context.Context, b *batch, key string, k *kept[R], events []decoded) (*kept[R], bool, *badEvent, error) {
	changed := false
	for i, e := range events {
		last, seen := k.revisions[e.Stream]
		if !seen {
			last = eventlog.NoStream
		}
		var cause error
		switch {
		case e.Revision <= last:
			continue
		case e.Revision > last+1:
			r := f.refolding(newHistory(awake{b.log, b.tx}, f.fold.Categories, key))
			r.most = b.limits.inBatch
			err := r.fold(ctx, b.end)
			switch {
			case errors.Is(err, errPoison), errors.Is(err, errTooLong):
				cause = err
			case err != nil:
				return nil, false, nil, err
			default:
				k = r.is
			}
		case e.err != nil:
			cause = e.err
		case len(e.Messages) == 0:
			cause = f.evolve(k, e)
		default:
			b.observe(e.Type, func() { cause = f.evolve(k, e) })
		}
		if cause != nil {
			return k, changed, &badEvent{i, e, cause}, nil
		}
		changed = changed || len(k.revisions) > 0
	}
	return k, changed, nil, nil
}

// evolve folds one event into a row. One of which nothing is made begins none, and is noted in one that is there: the next event
// of its stream is no gap then, for which the key would be folded anew.
func (f *folding[R]) evolve(k *kept[R], e decoded) error {
	if len(e.Messages) == 0 && len(k.revisions) == 0 {
		return nil
	}
	err := guarded(func() {
		for _, m := range e.messages() {
			f.fold.Evolve(&k.row, m)
		}
	})
	k.revisions[e.Stream] = e.Revision
	return err
}

func (f *folding[R]) empty(key string) *kept[R] {
	k := &kept[R]{revisions: map[string]eventlog.Revision{}}
	reflect.ValueOf(&k.row).Elem().Field(f.key.field).SetString(key)
	return k
}

func (f *folding[R]) values(k *kept[R]) ([]any, error) {
	values, err := fields(f.table.columns, reflect.ValueOf(&k.row).Elem())
	if err != nil {
		return nil, err
	}
	revisions, err := json.Marshal(k.revisions)
	partition := partitionOf(values[f.key.field].(string))
	return append(values, string(revisions), int64(partition)), err
}

// fetch reads the rows of keys.
func (f *folding[R]) fetch(ctx context.Context, tx pgx.Tx, keys []string) (map[string]*kept[R], error) {
	rows := make(map[string]*kept[R], len(keys))
	err := f.scan(ctx, tx, fmt.Sprintf(" WHERE %s = ANY($1)", pgx.Identifier{f.key.name}.Sanitize()), func(key string, k *kept[R]) error {
		rows[key] = k
		return nil
	}, keys)
	return rows, err
}

// scan calls visit for each row.
func (f *folding[R]) scan(ctx context.Context, q querier, where string, visit func(key string, k *kept[R]) error, args ...any) error {
	columns := append(slices.Clone(f.table.columns), f.table.extra[0])
	result, err := q.Query(ctx, fmt.Sprintf("SELECT %s FROM %s%s", list(columns), f.table.name, where), args...)
	if err != nil {
		return err
	}
	defer result.Close()
	for result.Next() {
		k := &kept[R]{revisions: map[string]eventlog.Revision{}}
		row := reflect.ValueOf(&k.row).Elem()
		if err := result.Scan(append(targets(f.table.columns, row), &k.revisions)...); err != nil {
			return err
		}
		utc(f.table.columns, row)
		if err := visit(row.Field(f.key.field).String(), k); err != nil {
			return err
		}
	}
	return result.Err()
}

// backfill derives a partition of a report or list that is new from the rows that are there. Where it can't be derived from one
// of them it fails: a key that was parked instead could not be told later from one that is in the report already.
func (f *folding[R]) backfill(ctx context.Context, tx pgx.Tx, name string, partition int) error {
	for _, d := range f.derived {
		if d.relation().name != name {
			continue
		}
		all := d.begin()
		if err := f.scan(ctx, tx, fmt.Sprintf(" WHERE %s = $1", partitionColumn), func(key string, k *kept[R]) error {
			var failed error
			if err := guarded(func() { failed = all.after(key, k.row) }); err != nil || failed != nil {
				return fmt.Errorf("the row of %s: %w", key, errors.Join(err, failed))
			}
			return nil
		}, partition); err != nil {
			return err
		}
		var writes pgx.Batch
		all.write(&writes)
		return tx.SendBatch(ctx, &writes).Close()
	}
	return nil
}
