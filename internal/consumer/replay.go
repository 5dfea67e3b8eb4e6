package consumer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/purserhq/purser/internal/eventlog"
)

// ErrPoison is in the chain of the error of an event that can't be read, or that a fold can't get past.
var ErrPoison = errPoison

// At folds the row of a key as it was when the log had come to a position, by the same function that heals it. It fails
// with [ErrPoison], or as the log does.
func (f *Fold[R]) At(ctx context.Context, log History, key string, position eventlog.Position) (R, error) {
	r := f.in("").refolding(newHistory(log, f.Categories, key))
	if err := r.fold(ctx, position); err != nil {
		var none R
		return none, err
	}
	return r.is.row, nil
}

// Replay lets one look at a fold, or at what is derived from one, event by event. It folds in memory, by the functions
// that the runtime folds by, and stores nothing.
type Replay struct {
	Name       string
	Categories []string
	// PerEvent: there is nothing to see but what the last event wrote.
	PerEvent bool
	begin    func(key string) stepping
}

type stepping struct {
	apply func(decoded) error
	view  func() (json.RawMessage, error)
}

// Stepper folds the events of one key, one at a time.
type Stepper struct {
	decoder Decoder
	stepping
}

// Begin returns a stepper of a key that has folded nothing yet.
func (r Replay) Begin(d Decoder, key string) *Stepper { return &Stepper{d, r.begin(key)} }

// Apply folds the next event of the key, and tells whether it is one that this build knows: one that it does not know
// is passed over. It fails with [ErrPoison] where the runtime parks the key, and with [eventlog.ErrNewerVersion].
func (s *Stepper) Apply(r eventlog.Recorded) (known bool, err error) {
	d, known, err := decode(s.decoder, r)
	if err != nil || !known {
		return false, err
	}
	if err = d.err; err == nil {
		err = s.apply(d)
	}
	if err != nil {
		return true, fmt.Errorf("%w: %s@%d: %w", errPoison, r.Stream, r.Revision, err)
	}
	return true, nil
}

// View is what there is to see now, as JSON: the row of a fold as an object, and what a report is contributed, a list
// holds or a journal was written as an array of objects. Of the entries of lists and journals what is empty is left out,
// and what is a list's reader's own.
func (s *Stepper) View() (view json.RawMessage, err error) {
	if perr := guarded(func() { view, err = s.view() }); perr != nil {
		return nil, perr
	}
	return view, err
}

// Replay shows the row.
func (f *Fold[R]) Replay() Replay {
	columns := columnsOf(reflect.TypeFor[R]())
	return replayOf(f, f.Name, func(row *R) (json.RawMessage, error) { return object(columns, reflect.ValueOf(row).Elem(), whole) })
}

// Replay shows what the row contributes.
func (r *Report[R, C]) Replay() Replay {
	return replayOf(r.Of, r.Name, func(row *R) (json.RawMessage, error) { return objects(r.Contribute(*row), whole) })
}

// Replay shows the row's entries.
func (l *List[R, E]) Replay() Replay {
	return replayOf(l.Of, l.Name, func(row *R) (json.RawMessage, error) { return objects(l.Entries(*row), sparse) })
}

func replayOf[R any](f *Fold[R], name string, view func(*R) (json.RawMessage, error)) Replay {
	shape := f.in("")
	return Replay{Name: name, Categories: f.Categories, begin: func(key string) stepping {
		k := shape.empty(key)
		return stepping{
			apply: func(d decoded) error { return shape.evolve(k, d) },
			view:  func() (json.RawMessage, error) { return view(&k.row) },
		}
	}}
}

// Replay shows the rows that the last event wrote.
func (j *Journal[J]) Replay() Replay {
	return Replay{Name: j.Name, Categories: j.Categories, PerEvent: true, begin: func(string) stepping {
		var rows []J
		return stepping{
			apply: func(d decoded) error {
				rows = nil
				return guarded(func() {
					for _, m := range d.messages() {
						rows = append(rows, j.Entries(m)...)
					}
				})
			},
			view: func() (json.RawMessage, error) { return objects(rows, sparse) },
		}
	}}
}

// filling tells whether what is empty in an object is left out.
type filling bool

const (
	whole  filling = false
	sparse filling = true
)

func objects[E any](rows []E, f filling) (json.RawMessage, error) {
	columns := columnsOf(reflect.TypeFor[E]())
	all := make([]json.RawMessage, len(rows))
	for i := range rows {
		var err error
		if all[i], err = object(columns, reflect.ValueOf(&rows[i]).Elem(), f); err != nil {
			return nil, err
		}
	}
	return json.Marshal(all)
}

// object is a row by the names of its columns, in their order.
func object(columns []column, row reflect.Value, f filling) (json.RawMessage, error) {
	var b bytes.Buffer
	for _, c := range columns {
		if c.local || f == sparse && row.Field(c.field).IsZero() {
			continue
		}
		field := row.Field(c.field).Interface()
		if t, ok := field.(time.Time); ok && t.IsZero() {
			field = nil
		}
		value, err := json.Marshal(field)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", c.name, err)
		}
		fmt.Fprintf(&b, ",%q:%s", c.name, value)
	}
	return json.RawMessage("{" + string(bytes.TrimPrefix(b.Bytes(), []byte(","))) + "}"), nil
}
