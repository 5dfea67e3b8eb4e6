package consumer

import (
	"context"
	"errors"
	"fmt"
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
	a := &audit{tx: tx, log: c.log, model: m, build: name, found: func(d Difference) { differences = append(differences, d) }}
	if err := a.beginBuild(ctx); err != nil {
		return nil, err
	}
	keys, err := a.sample(ctx)
	if err != nil {
		return nil, fmt.Errorf("choose a sample: %w", err)
	}
	if err := a.auditor.auditSample(ctx, keys, rand.N(partitions)); err != nil {
		return nil, err
	}
	if err := a.differParked(ctx); err != nil {
		return nil, err
	}
	c.logger.Info("a build is compared with the log", "build", name, "keys", len(keys), "differences", len(differences))
	return differences, nil
}

// ofEach asks the log for what some keys add up to, for several at once. Those that can't be told are left out.
func ofEach[T any](ctx context.Context, keys []string, ask func(ctx context.Context, key string) (T, error)) (map[string]T, error) {
	all := make(map[string]T, len(keys))
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(askedAtOnce)
	for _, key := range keys {
		g.Go(func() error {
			t, err := ask(ctx, key)
			if errors.Is(err, errPoison) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			all[key] = t
			return err
		})
	}
	return all, g.Wait()
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

func (a *foldAuditor[R]) auditSample(ctx context.Context, keys []string, partition int) error {
	rows, err := ofEach(ctx, keys, func(ctx context.Context, key string) (*kept[R], error) {
		return a.f.refold(ctx, a.log, key, a.upTo(key))
	})
	if err != nil {
		return err
	}
	var folded, none []string // none: keys of the live build that this one need not have
	for _, key := range keys {
		k, ok := rows[key]
		switch {
		case !ok:
			a.unfoldable(key, a.upTo(key))
		case len(k.revisions) == 0:
			none = append(none, key)
		default:
			a.rows[key], folded = k, append(folded, key)
		}
	}
	if err := a.compareRows(ctx, folded); err != nil {
		return err
	}
	differ, err := a.f.table.compare(ctx, a.tx, nil, a.f.table.ofKeys(), none)
	if err != nil {
		return err
	}
	a.differ(a.relation(), differ)
	for _, d := range a.f.derived {
		all := d.begin()
		if err := a.f.scan(ctx, a.tx, fmt.Sprintf(" WHERE %s = $1", partitionColumn), func(key string, k *kept[R]) error {
			return all.after(key, k.row)
		}, partition); err != nil {
			return err
		}
		r := d.relation()
		differ, err := r.table.compare(ctx, a.tx, all.wanted(), fmt.Sprintf("WHERE %s = $1", partitionColumn), partition)
		if err != nil {
			return err
		}
		a.differ(r, differ)
	}
	return nil
}

func (a *journalAuditor[J]) auditSample(ctx context.Context, keys []string, _ int) error {
	r := a.j.relations()[0]
	rows, err := ofEach(ctx, keys, func(ctx context.Context, key string) ([][]any, error) {
		return a.j.rederive(ctx, a.log, key, a.upTo(key))
	})
	if err != nil {
		return err
	}
	for _, key := range keys {
		if _, ok := rows[key]; !ok {
			a.unfoldable(key, a.upTo(key))
			continue
		}
		differ, err := r.table.compare(ctx, a.tx, rows[key], r.table.ofKeys(), []string{key})
		if err != nil {
			return err
		}
		a.differ(r, differ)
	}
	return nil
}
