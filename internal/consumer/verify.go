package consumer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// sampled is about how many keys of a build are compared with the log before readers are sent to it.
const sampled = 200

// askedAtOnce is for how many of them the log is asked at once.
const askedAtOnce = 16

// verifyTimeout bounds the comparison: Postgres keeps old versions of rows as long as it lasts.
const verifyTimeout = 2 * time.Minute

// verify compares a sample of a build with what the log adds up to, what is derived for one of its partitions with its rows, and
// its parked keys with those of the live build: it should have no others.
func (c *Consumer) verify(ctx context.Context, m Model, name string) (differences []Difference, err error) {
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	tx, err := c.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // nothing was written
	if _, err := tx.Exec(ctx, readWhole); err != nil {
		return nil, err
	}
	a := &audit{tx: tx, log: c.log, model: m, build: name, limits: c.limits, found: func(d Difference) { differences = append(differences, d) }}
	if err := a.beginBuild(ctx); err != nil {
		return nil, err
	}
	keys, err := a.sample(ctx)
	if err != nil {
		return nil, fmt.Errorf("choose a sample: %w", err)
	}
	compared, err := a.auditor.auditSample(ctx, keys, rand.N(partitions))
	if err != nil {
		return nil, err
	}
	if err := a.differParked(ctx); err != nil {
		return nil, err
	}
	c.logger.Info("a build is compared with the log", "build", name, "keys", compared, "differences", len(differences))
	return differences, nil
}

// foldSample folds keys anew, several at once, until they have had as many events as they may, and reports those that can't be
// folded. It returns those that were.
func foldSample[T refolding](ctx context.Context, a *audit, keys []string, begin func(*history) T) (map[string]T, error) {
	folded := make(map[string]T, len(keys))
	var bad []string
	var mu sync.Mutex
	read := 0
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(askedAtOnce)
	for _, i := range rand.Perm(len(keys)) {
		key := keys[i]
		g.Go(func() error {
			mu.Lock()
			enough := read >= a.limits.sampled
			mu.Unlock()
			if enough {
				return nil
			}
			h := newHistory(a.log, a.model.categories, key)
			h.most = a.limits.sampled / 10
			t := begin(h)
			err := t.fold(ctx, a.upTo(key))
			mu.Lock()
			defer mu.Unlock()
			read += h.read
			switch {
			case errors.Is(err, errTooLong):
				return nil
			case errors.Is(err, errPoison):
				bad = append(bad, key)
				return nil
			}
			folded[key] = t
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, key := range bad {
		a.unfoldable(key, a.upTo(key))
	}
	return folded, nil
}

// sample chooses keys at random: of the build, and of the live one, which may have some that are missing here.
func (a *audit) sample(ctx context.Context) ([]string, error) {
	var live string
	if err := a.tx.QueryRow(ctx, `SELECT coalesce((SELECT build FROM consumer.live WHERE model = $1 AND version = $2), $3)`,
		a.model.name, a.model.version, a.build).Scan(&live); err != nil {
		return nil, err
	}
	var keys []string
	for _, build := range []string{a.build, live} {
		t := a.model.open(build).relations()[0].table
		key := pgx.Identifier{t.keyColumn().name}.Sanitize()
		rows, err := a.tx.Query(ctx, fmt.Sprintf(`SELECT DISTINCT %s FROM %s
			WHERE random() < $1::float / (SELECT greatest(count(*), 1) FROM %[2]s)`, key, t.name), sampled/2)
		if err != nil {
			return nil, err
		}
		chosen, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return nil, err
		}
		keys = append(keys, chosen...)
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// differParked finds keys that are parked in the build, and not in the live one.
func (a *audit) differParked(ctx context.Context) error {
	rows, err := a.tx.Query(ctx, `SELECT key, cause FROM consumer.parked WHERE build = $1 AND key NOT IN (
		SELECT key FROM consumer.parked JOIN consumer.live AS l USING (build) WHERE l.model = $2 AND l.version = $3)`,
		a.build, a.model.name, a.model.version)
	if err != nil {
		return err
	}
	var key, cause string
	_, err = pgx.ForEachRow(rows, []any{&key, &cause}, func() error {
		a.found(Difference{Model: a.model.name, Table: a.model.name, Key: []string{key}, What: "is parked: " + cause})
		return nil
	})
	return err
}

func (a *foldAuditor[R]) auditSample(ctx context.Context, keys []string, partition int) (compared int, err error) {
	sample, err := foldSample(ctx, a.audit, keys, a.f.refolding)
	if err != nil {
		return 0, err
	}
	var folded, none []string // none: keys of the live build that this one need not have
	for key, r := range sample {
		if len(r.is.revisions) == 0 {
			none = append(none, key)
		} else {
			a.rows[key], folded = r.is, append(folded, key)
		}
	}
	if err := a.compareRows(ctx, folded); err != nil {
		return 0, err
	}
	differ, err := a.f.table.compare(ctx, a.tx, nil, a.f.table.ofKeys(), none)
	if err != nil {
		return 0, err
	}
	a.differ(a.relation(), differ)
	for _, d := range a.f.derived {
		all := d.begin()
		if err := a.f.scan(ctx, a.tx, fmt.Sprintf(" WHERE %s = $1", partitionColumn), func(key string, k *kept[R]) error {
			return all.after(key, k.row)
		}, partition); err != nil {
			return 0, err
		}
		r := d.relation()
		differ, err := r.table.compare(ctx, a.tx, all.wanted(), fmt.Sprintf("WHERE %s = $1", partitionColumn), partition)
		if err != nil {
			return 0, err
		}
		a.differ(r, differ)
	}
	return len(sample), nil
}

func (a *journalAuditor[J]) auditSample(ctx context.Context, keys []string, _ int) (compared int, err error) {
	sample, err := foldSample(ctx, a.audit, keys, a.j.refolding)
	if err != nil {
		return 0, err
	}
	r := a.j.relations()[0]
	for _, key := range slices.Sorted(maps.Keys(sample)) {
		differ, err := r.table.compare(ctx, a.tx, sample[key].rows, r.table.ofKeys(), []string{key})
		if err != nil {
			return 0, err
		}
		a.differ(r, differ)
	}
	return len(sample), nil
}
