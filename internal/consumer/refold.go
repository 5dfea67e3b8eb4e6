package consumer

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/jackc/pgx/v5"

	"github.com/purserhq/purser/internal/eventlog"
)

// errPoison wraps what a fold can't get past.
var errPoison = errors.New("can't be applied")

// poisonous says at which event a key can't be applied any further.
func poisonous(e decoded, cause error) error {
	return fmt.Errorf("%w: %s@%d: %w", errPoison, e.Stream, e.Revision, cause)
}

// refolding is a key whose events are folded anew from the first one on: the one way to heal what is stored of it, whatever
// happened to it.
type refolding interface {
	// fold goes on up to a position. It fails with errPoison where the events can't be applied.
	fold(ctx context.Context, upTo eventlog.Position) error
	// write writes what the events add up to, whatever is stored, and what is derived from it.
	write(ctx context.Context, b *batch) error
}

// rowRefolding makes the row of a fold.
type rowRefolding[R any] struct {
	*history
	f  *folding[R]
	is *kept[R]
}

func (f *folding[R]) refolding(h *history) *rowRefolding[R] {
	return &rowRefolding[R]{h, f, f.empty(h.key)}
}

func (f *folding[R]) anew(h *history) refolding { return f.refolding(h) }

func (r *rowRefolding[R]) fold(ctx context.Context, upTo eventlog.Position) error {
	for e, err := range r.upTo(ctx, upTo) {
		if err != nil {
			return err
		}
		if err = e.err; err == nil {
			err = r.f.evolve(r.is, e)
		}
		if err != nil {
			return poisonous(e, err)
		}
	}
	return nil
}

func (r *rowRefolding[R]) write(ctx context.Context, b *batch) error {
	f := r.f
	rows, err := f.fetch(ctx, b.tx, []string{r.key})
	if err != nil {
		return err
	}
	was, stored := rows[r.key]
	differences, err := f.derive(func(d difference[R]) error {
		if stored {
			if err := d.before(r.key, was.row); err != nil {
				return err
			}
		}
		if len(r.is.revisions) == 0 {
			return nil
		}
		return d.after(r.key, r.is.row)
	})
	if err != nil {
		return fmt.Errorf("%w: what is derived from its row: %w", errPoison, err)
	}
	if len(r.is.revisions) == 0 { // nothing that this build knows of
		b.writes.Queue(f.table.deletion(""), []string{r.key})
	} else {
		values, err := f.values(r.is)
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

// entriesRefolding makes the rows of a journal.
type entriesRefolding[J any] struct {
	*history
	j    *journaling[J]
	rows [][]any
}

func (j *journaling[J]) refolding(h *history) *entriesRefolding[J] {
	return &entriesRefolding[J]{history: h, j: j}
}

func (j *journaling[J]) anew(h *history) refolding { return j.refolding(h) }

func (r *entriesRefolding[J]) fold(ctx context.Context, upTo eventlog.Position) error {
	for e, err := range r.upTo(ctx, upTo) {
		if err != nil {
			return err
		}
		rows, err := r.j.rows(e)
		if err != nil {
			return poisonous(e, err)
		}
		r.rows = append(r.rows, rows...)
	}
	return nil
}

func (r *entriesRefolding[J]) write(_ context.Context, b *batch) error {
	t := r.j.table
	b.writes.Queue(fmt.Sprintf("DELETE FROM %s WHERE %s = $1", t.name, pgx.Identifier{r.j.key.name}.Sanitize()), r.key)
	if len(r.rows) > 0 {
		b.writes.Queue(t.upsert(""), arrays(t.all(), r.rows)...)
	}
	return nil
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
