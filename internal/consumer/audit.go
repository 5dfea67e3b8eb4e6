package consumer

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/purserhq/purser/internal/eventlog"
)

// Auditable is what is needed of the event log to compare keys with it.
type Auditable interface {
	History
	Head(ctx context.Context) (eventlog.Position, error)
	Has(ctx context.Context, at eventlog.Position, id uuid.UUID) (bool, error)
}

// Walkable is what is needed of the event log for an audit.
type Walkable interface {
	Auditable
	// All returns every event of the log, in its order.
	All(ctx context.Context) iter.Seq2[eventlog.Recorded, error]
}

// Difference is something that is not stored as the log has it.
type Difference struct {
	Model string
	// Table is a name by which readers know a table of the model: its own, or that of a report or list.
	Table string
	// Key tells the row: the values of the columns of its key.
	Key []string
	// Column that differs, or "" where the whole row does: then What says how.
	Column, What string
	// Stored and Wanted are the values of the column, which may be personal.
	Stored, Wanted string
}

// Audited says what an audit has looked at.
type Audited struct {
	Model    string
	Derived  []string          // the names of its reports and lists
	Position eventlog.Position // the checkpoint
	Keys     int
	Parked   []ParkedKey
	// Missing are the tables of this version of the model that were never made here, by the names that readers know. Where
	// there is any, nothing is compared.
	Missing []string
}

// Audit compares what is stored of models with what the log adds up to, at their checkpoints, and calls found for each
// difference. It reads tables and checkpoints in one snapshot of the database, in which they belong together, so those who
// keep them up to date may go on meanwhile; and the log once. It writes nothing. Parked keys are compared with what they add
// up to before the event for which they were parked.
//
// In memory it holds a row of each fold for each key, as large as it is stored, and a number for each key of a journal.
func Audit(ctx context.Context, pool *pgxpool.Pool, log Walkable, models []Model, passed func(eventlog.Position), found func(Difference)) ([]Audited, error) {
	tx, err := pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("begin a snapshot: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // nothing was written
	if _, err := tx.Exec(ctx, readWhole); err != nil {
		return nil, err
	}
	var audits []*audit
	var done []Audited
	for _, m := range models {
		a := &audit{tx: tx, log: log, model: m, found: found}
		if err := a.begin(ctx); err != nil {
			return nil, fmt.Errorf("audit %s: %w", m.name, err)
		}
		if len(a.missing) > 0 {
			done = append(done, Audited{Model: m.name, Missing: a.missing})
		} else {
			audits = append(audits, a)
		}
	}
	if err := walkAll(ctx, log, audits, passed); err != nil {
		return nil, err
	}
	for _, a := range audits {
		keys, err := a.auditor.finish(ctx)
		if err != nil {
			return nil, fmt.Errorf("audit %s: %w", a.model.name, err)
		}
		done = append(done, Audited{Model: a.model.name, Derived: a.model.derived, Position: slices.Min(a.positions), Keys: keys, Parked: a.listed})
	}
	return done, nil
}

// readWhole lets Postgres read tables whole, where most of their rows are looked at.
const readWhole = "SET LOCAL enable_seqscan = on"

// walkAll passes the log on to the audits, up to the furthest of their checkpoints.
func walkAll(ctx context.Context, log Walkable, audits []*audit, passed func(eventlog.Position)) error {
	var end eventlog.Position
	for _, a := range audits {
		end = max(end, slices.Max(a.positions))
	}
	if end == 0 {
		return nil
	}
	for r, err := range log.All(ctx) {
		if err != nil {
			return fmt.Errorf("walk the log: %w", err)
		}
		if r.Position > end {
			return nil
		}
		passed(r.Position)
		category, key, ok := keyOf(r.Stream)
		if !ok {
			continue
		}
		var d *decoded
		for _, a := range audits {
			if !a.includes(category, key, r.Position) {
				continue
			}
			if d == nil {
				e, _, err := decode(log, r)
				if err != nil {
					return err
				}
				d = &e
			}
			if err := a.auditor.add(ctx, *d); err != nil {
				return fmt.Errorf("audit %s: %w", a.model.name, err)
			}
		}
	}
	return nil
}

// auditor collects what events add up to, and compares.
type auditor interface {
	// add takes the next event of the model.
	add(ctx context.Context, d decoded) error
	// finish compares what is left to be compared, and tells how many keys there were.
	finish(ctx context.Context) (keys int, err error)
	// auditSample compares some keys, as far as there are not too many events, and what is derived for a partition with its rows. It
	// tells how many keys were compared.
	auditSample(ctx context.Context, keys []string, partition int) (compared int, err error)
}

// audit is that of one model.
type audit struct {
	tx      pgx.Tx
	log     Auditable
	model   Model
	build   string
	auditor auditor
	found   func(Difference)
	limits  limits

	missing   []string            // tables
	positions []eventlog.Position // of each partition
	parked    map[string]eventlog.Position
	listed    []ParkedKey
}

// begin reads how far the model is, and sees to it that this is a place in this log.
func (a *audit) begin(ctx context.Context) error {
	if err := a.findTables(ctx); err != nil || len(a.missing) > 0 {
		return err
	}
	return a.beginBuild(ctx)
}

// beginBuild reads how far the build is.
func (a *audit) beginBuild(ctx context.Context) error {
	a.auditor = a.model.open(a.build).auditor(a)
	rows, err := a.tx.Query(ctx, "SELECT position, event_position, event_id FROM consumer.checkpoints WHERE build = $1 ORDER BY partition", a.build)
	if err != nil {
		return err
	}
	anchors := map[anchor]bool{}
	var p eventlog.Position
	var last anchor
	if _, err := pgx.ForEachRow(rows, []any{&p, &last.position, &last.id}, func() error {
		a.positions = append(a.positions, p)
		anchors[last] = last != anchor{}
		return nil
	}); err != nil {
		return err
	}
	if len(a.positions) != partitions {
		return fmt.Errorf("it has checkpoints of %d partitions, not of %d", len(a.positions), partitions)
	}
	head, err := a.log.Head(ctx)
	if err != nil {
		return err
	}
	for last, some := range anchors {
		has := slices.Max(a.positions) <= head
		if has && some {
			if has, err = a.log.Has(ctx, last.position, last.id); err != nil {
				return err
			}
		}
		if !has {
			return errors.New("it was built from another event store, or from a later state of this one")
		}
	}
	return a.beginParked(ctx)
}

// findTables finds the live build, and which of its tables are not filled.
func (a *audit) findTables(ctx context.Context) error {
	shape := a.model.open("")
	var ever bool
	if err := a.tx.QueryRow(ctx, "SELECT to_regclass('consumer.live') IS NOT NULL").Scan(&ever); err != nil {
		return err
	}
	err := pgx.ErrNoRows
	if ever {
		err = a.tx.QueryRow(ctx, "SELECT build FROM consumer.live WHERE model = $1 AND version = $2", a.model.name, a.model.version).Scan(&a.build)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		for _, r := range shape.relations() {
			a.missing = append(a.missing, r.name)
		}
		return nil
	}
	if err != nil {
		return err
	}
	shape = a.model.open(a.build)
	for _, r := range shape.relations() {
		var filled int
		if err := a.tx.QueryRow(ctx, "SELECT count(*) FROM consumer.relations WHERE build = $1 AND name = $2 AND version = $3 AND partition >= 0",
			a.build, r.name, r.version).Scan(&filled); err != nil {
			return err
		}
		if filled < partitions {
			a.missing = append(a.missing, r.name)
		}
	}
	return nil
}

func (a *audit) beginParked(ctx context.Context) error {
	rows, err := a.tx.Query(ctx, "SELECT key, position, cause, parked_at FROM consumer.parked WHERE build = $1 ORDER BY key", a.build)
	if err != nil {
		return err
	}
	a.parked = map[string]eventlog.Position{}
	var k ParkedKey
	_, err = pgx.ForEachRow(rows, []any{&k.Key, &k.Position, &k.Cause, &k.ParkedAt}, func() error {
		k.Model, a.parked[k.Key] = a.model.name, k.Position
		a.listed = append(a.listed, k)
		return nil
	})
	return err
}

// includes tells whether an event should be in what is stored.
func (a *audit) includes(category, key string, at eventlog.Position) bool {
	return a.model.reads(category) && at <= a.upTo(key)
}

// upTo is the position up to which a key should be in what is stored.
func (a *audit) upTo(key string) eventlog.Position {
	upTo := a.positions[partitionOf(key)]
	if parked, ok := a.parked[key]; ok {
		upTo = min(upTo, parked-1)
	}
	return upTo
}

// differ passes on what a comparison has found, for the table of a relation.
func (a *audit) differ(r relation, rows []compared) {
	for _, c := range rows {
		d := Difference{Model: a.model.name, Table: r.name, Key: c.key}
		switch {
		case !c.stored:
			d.What = "is missing"
			a.found(d)
		case !c.wanted:
			d.What = "is there, and nothing in the log calls for it"
			a.found(d)
		}
		for _, column := range c.columns {
			d.Column, d.Stored, d.Wanted = column.name, column.stored, column.wanted
			a.found(d)
		}
	}
}

// unfoldable passes on that a key can't be folded, though it is not parked.
func (a *audit) unfoldable(key string, at eventlog.Position) {
	a.found(Difference{Model: a.model.name, Table: a.model.name, Key: []string{key}, What: fmt.Sprintf("can't be told: its event at position %d can't be applied", at)})
}
