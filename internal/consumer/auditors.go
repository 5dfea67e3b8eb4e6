package consumer

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/purserhq/purser/internal/eventlog"
)

// comparedAtOnce bounds the rows that are sent to Postgres for one comparison.
const comparedAtOnce = 1000

func (f *folding[R]) auditor(a *audit) auditor {
	return &foldAuditor[R]{audit: a, f: f, rows: map[string]*kept[R]{}, bad: map[string]eventlog.Position{}}
}

// foldAuditor folds every key in memory, and at the end compares the rows, and what they and no others contribute.
type foldAuditor[R any] struct {
	*audit
	f    *folding[R]
	rows map[string]*kept[R]
	bad  map[string]eventlog.Position // keys that can't be folded past an event
}

func (a *foldAuditor[R]) add(_ context.Context, d decoded) error {
	if _, bad := a.bad[d.key]; bad {
		return nil
	}
	k, ok := a.rows[d.key]
	if !ok {
		k = a.f.empty(d.key)
	}
	if d.err != nil || a.f.evolve(k, d) != nil {
		a.bad[d.key] = d.Position
	} else if len(k.revisions) == 0 {
		return nil // nothing is made of it
	}
	a.rows[d.key] = k
	return nil
}

func (a *foldAuditor[R]) finish(ctx context.Context) (int, error) {
	keys := slices.Sorted(maps.Keys(a.rows))
	for _, key := range slices.Sorted(maps.Keys(a.bad)) {
		a.unfoldable(key, a.bad[key])
	}
	for chunk := range slices.Chunk(keys, comparedAtOnce) {
		if err := a.compareRows(ctx, chunk); err != nil {
			return 0, err
		}
	}
	if err := a.findOrphans(ctx); err != nil {
		return 0, err
	}
	for _, d := range a.f.derived {
		if err := a.compareDerived(ctx, d, keys); err != nil {
			return 0, fmt.Errorf("%s: %w", d.relation().name, err)
		}
	}
	return len(keys), nil
}

func (a *foldAuditor[R]) relation() relation { return a.f.relations()[0] }

func (a *foldAuditor[R]) compareRows(ctx context.Context, keys []string) error {
	var rows [][]any
	var looked []string
	for _, key := range keys {
		if _, bad := a.bad[key]; bad {
			continue
		}
		values, err := a.f.values(a.rows[key])
		if err != nil {
			return err
		}
		rows, looked = append(rows, values), append(looked, key)
	}
	differ, err := a.f.table.compare(ctx, a.tx, rows, a.f.table.ofKeys(), looked)
	if err != nil {
		return err
	}
	a.differ(a.relation(), differ)
	return nil
}

// findOrphans finds the rows of keys that are not in the log.
func (a *foldAuditor[R]) findOrphans(ctx context.Context) error {
	stored, err := a.f.table.counts(ctx, a.tx)
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(stored)) {
		if _, ok := a.rows[key]; !ok {
			a.differ(a.relation(), []compared{{key: []string{key}, stored: true}})
		}
	}
	return nil
}

// compareDerived compares a report or list as a whole, as all rows make it up.
func (a *foldAuditor[R]) compareDerived(ctx context.Context, d derivation[R], keys []string) error {
	all := d.begin()
	for _, key := range keys {
		if _, bad := a.bad[key]; bad {
			continue
		}
		one := d.begin() // so that a row that can't be derived from adds nothing, as in a batch
		var failed error
		if err := guarded(func() { failed = one.after(key, a.rows[key].row) }); err != nil || failed != nil {
			a.found(Difference{Model: a.model.name, Table: d.relation().name, Key: []string{key}, What: "can't be told: nothing can be derived from this row"})
			continue
		}
		all.add(one)
	}
	r := d.relation()
	differ, err := r.table.compare(ctx, a.tx, all.wanted(), "")
	if err != nil {
		return err
	}
	a.differ(r, differ)
	return nil
}

func (s *sums[R, C]) wanted() [][]any { return sortedLines(s.lines) }

func (d *entries[R, E]) wanted() [][]any { return sortedLines(d.is) }

func sortedLines(lines map[string][]any) [][]any {
	all := make([][]any, 0, len(lines))
	for _, key := range slices.Sorted(maps.Keys(lines)) {
		all = append(all, lines[key])
	}
	return all
}

func (j *journaling[J]) auditor(a *audit) auditor {
	return &journalAuditor[J]{audit: a, j: j, count: map[string]int{}, bad: map[string]bool{}}
}

// journalAuditor compares rows as it goes, and remembers only how many there should be of each key.
type journalAuditor[J any] struct {
	*audit
	j       *journaling[J]
	pending [][]any
	count   map[string]int
	bad     map[string]bool
}

func (a *journalAuditor[J]) add(ctx context.Context, d decoded) error {
	if a.bad[d.key] {
		return nil
	}
	rows, err := a.j.rows(d)
	if err != nil {
		a.bad[d.key] = true
		a.unfoldable(d.key, d.Position)
		return nil
	}
	a.count[d.key] += len(rows)
	a.pending = append(a.pending, rows...)
	if len(a.pending) >= comparedAtOnce {
		return a.comparePending(ctx)
	}
	return nil
}

// comparePending finds rows that are missing or differ. Which ones are there beside them only the end can tell.
func (a *journalAuditor[J]) comparePending(ctx context.Context) error {
	rows := a.pending
	a.pending = nil
	differ, err := a.j.table.compareGiven(ctx, a.tx, rows)
	if err != nil {
		return err
	}
	for _, c := range differ {
		if !c.stored {
			a.count[c.key[0]]-- // so that as many should be there as there are, if no other is
		}
	}
	a.differ(a.j.relations()[0], differ)
	return nil
}

func (a *journalAuditor[J]) finish(ctx context.Context) (int, error) {
	if err := a.comparePending(ctx); err != nil {
		return 0, err
	}
	stored, err := a.j.table.counts(ctx, a.tx)
	if err != nil {
		return 0, err
	}
	for _, key := range slices.Sorted(maps.Keys(stored)) {
		if stored[key] == a.count[key] || a.bad[key] {
			continue
		}
		r := a.j.refolding(newHistory(a.log, a.model.categories, key))
		if err := r.fold(ctx, a.upTo(key)); err != nil {
			return 0, err
		}
		differ, err := a.j.table.compare(ctx, a.tx, r.rows, a.j.table.ofKeys(), []string{key})
		if err != nil {
			return 0, err
		}
		differ = slices.DeleteFunc(differ, func(c compared) bool { return c.wanted }) // which was told before
		a.differ(a.j.relations()[0], differ)
	}
	return len(a.count), nil
}
