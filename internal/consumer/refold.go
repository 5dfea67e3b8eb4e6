package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/purserhq/purser/internal/eventlog"
)

// errPoison wraps what a fold can't get past.
var errPoison = errors.New("can't be applied")

// poisonous says at which event a key can't be applied any further.
func poisonous(e decoded, cause error) error {
	return fmt.Errorf("%w: %s@%d: %w", errPoison, e.Stream, e.Revision, cause)
}

// history is the events of a key up to a position, in the order of the log. Where one of its streams was deleted for good, what
// they add up to can't be told any more.
func history(ctx context.Context, log History, categories []string, key string, upTo eventlog.Position) ([]decoded, error) {
	var events []decoded
	for _, category := range categories {
		stream := eventlog.StreamName(category, key)
		recorded, err := log.Read(ctx, stream, 0, 0)
		if errors.Is(err, eventlog.ErrDeleted) {
			return nil, fmt.Errorf("%w: %s: %w", errPoison, stream, err)
		}
		if err != nil {
			return nil, err
		}
		for _, r := range recorded {
			if r.Position > upTo {
				break
			}
			d, _, err := decode(log, r)
			if err != nil {
				return nil, err
			}
			events = append(events, d)
		}
	}
	slices.SortFunc(events, func(a, b decoded) int { return cmp.Compare(a.Position, b.Position) })
	return events, nil
}

// refold folds a key from its first event up to a position: the one way to heal a row, whatever happened to it.
func (f *folding[R]) refold(ctx context.Context, log History, key string, upTo eventlog.Position) (*kept[R], error) {
	events, err := history(ctx, log, f.fold.Categories, key, upTo)
	if err != nil {
		return nil, err
	}
	k := f.empty(key)
	for _, e := range events {
		err := e.err
		if err == nil {
			err = f.evolve(k, e)
		}
		if err != nil {
			return nil, poisonous(e, err)
		}
	}
	return k, nil
}

// restore writes the row that a key's events add up to, whatever is stored, and what is derived from it.
func (f *folding[R]) restore(ctx context.Context, b *batch, key string) error {
	rows, err := f.fetch(ctx, b.tx, []string{key})
	if err != nil {
		return err
	}
	was, stored := rows[key]
	is, err := f.refold(ctx, b.log, key, b.end)
	if err != nil {
		return err
	}
	differences, err := f.derive(func(d difference[R]) error {
		if stored {
			if err := d.before(key, was.row); err != nil {
				return err
			}
		}
		if len(is.revisions) == 0 {
			return nil
		}
		return d.after(key, is.row)
	})
	if err != nil {
		return fmt.Errorf("%w: what is derived from its row: %w", errPoison, err)
	}
	if len(is.revisions) == 0 { // nothing that this build knows of
		b.writes.Queue(f.table.deletion(""), []string{key})
	} else {
		values, err := f.values(is)
		if err != nil {
			return fmt.Errorf("%w: %w", errPoison, err)
		}
		b.writes.Queue(f.table.upsert(f.table.replace()), arrays(f.table.all(), [][]any{values})...)
	}
	for _, d := range differences {
		d.write(b.writes)
	}
	return nil
}

// restore writes the rows that a key's events call for, and no others of that key.
func (j *journaling[J]) restore(ctx context.Context, b *batch, key string) error {
	rows, err := j.rederive(ctx, b.log, key, b.end)
	if err != nil {
		return err
	}
	b.writes.Queue(fmt.Sprintf("DELETE FROM %s WHERE %s = $1", j.table.name, pgx.Identifier{j.key.name}.Sanitize()), key)
	if len(rows) > 0 {
		b.writes.Queue(j.table.upsert(""), arrays(j.table.all(), rows)...)
	}
	return nil
}

// rederive is the rows that a key's events up to a position call for.
func (j *journaling[J]) rederive(ctx context.Context, log History, key string, upTo eventlog.Position) ([][]any, error) {
	events, err := history(ctx, log, j.journal.Categories, key, upTo)
	if err != nil {
		return nil, err
	}
	var all [][]any
	for _, e := range events {
		rows, err := j.rows(e)
		if err != nil {
			return nil, poisonous(e, err)
		}
		all = append(all, rows...)
	}
	return all, nil
}

// rows are what an event calls for. Each is to be found by the key of the event.
func (j *journaling[J]) rows(e decoded) (rows [][]any, err error) {
	if e.err != nil {
		return nil, e.err
	}
	perr := guarded(func() {
		for _, m := range e.messages() {
			for _, row := range j.journal.Entries(m) {
				v := reflect.ValueOf(&row).Elem()
				if v.Field(j.key.field).String() != e.key {
					err = fmt.Errorf("a row of the key %q is under another one", e.key)
					return
				}
				var values []any
				if values, err = fields(j.table.columns, v); err != nil {
					return
				}
				rows = append(rows, values)
			}
		}
	})
	return rows, errors.Join(perr, err)
}
