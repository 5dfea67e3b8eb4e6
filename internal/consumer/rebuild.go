package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/purserhq/purser/internal/fault"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	// progressPause is how often a rebuild tells how far it is, rateWindow the time over which its rate is measured.
	progressPause = 500 * time.Millisecond
	rateWindow    = 5 * time.Second
	// levelPause is how often it is looked whether a build has all that the live one has, levelTimeout for how long.
	levelPause   = 20 * time.Millisecond
	levelTimeout = 30 * time.Second
	// levelLag is how much more than the live build one may lag for it to count as complete: it is behind for a while after its
	// indexes were made.
	levelLag = 5 * time.Second
)

// Phase is what a rebuild is doing.
type Phase uint8

const (
	Filling   Phase = iota // it reads the log
	Indexing               // it makes its indexes
	Verifying              // it is compared with the log
	Done
)

// Progress is how far a rebuild is.
type Progress struct {
	Build string
	Phase Phase
	// Events that it has passed, and about how many there are.
	Events, Total int64
	PerSecond     float64
	Left          time.Duration // about; 0 where that can't be told
}

// Rebuild makes another build of a model beside the live one, tells how far it is, and sends readers there once it holds all
// that the live one does, and a sample of it is what the log adds up to; unless they are to stay. Where a build was begun that
// readers were never sent to, it goes on with that one. The build is made by whoever runs the model: it goes on when ctx ends.
//
// It fails with PROJECTION_PAUSED, with BUILD_KEPT where one that readers were sent to before is still kept, and with
// BUILD_DIFFERS, or as tell does.
func (c *Consumer) Rebuild(ctx context.Context, model string, stay bool, tell func(Progress) error) error {
	m, err := c.model(model)
	if err != nil {
		return err
	}
	name, err := c.beginRebuild(ctx, m)
	if err != nil {
		return err
	}
	c.hurry()
	if err := c.watchFilling(ctx, m, name, tell); err != nil {
		return err
	}
	differences, err := c.verify(ctx, m, name)
	if err != nil {
		return fmt.Errorf("verify %s: %w", name, err)
	}
	if len(differences) > 0 {
		for _, d := range differences[:min(len(differences), 10)] {
			c.logger.Error("a build differs from the log", "build", name, "table", d.Table, "key", d.Key, "column", d.Column, "what", d.What)
		}
		return fault.Refused(typev1.ErrorReason_ERROR_REASON_BUILD_DIFFERS, "build %q is not what the log adds up to, or has parked keys; readers stay where they are", name)
	}
	if !stay {
		if err := c.switchTo(ctx, m, name); err != nil {
			return err
		}
	}
	all, err := c.buildStatuses(ctx, m.name)
	if err != nil {
		return err
	}
	b, live := find(all, name, m.version)
	return tell(Progress{Build: name, Phase: Done, Events: b.Events, Total: max(b.Events, live.Events)})
}

// beginRebuild makes the build, or finds the one to go on with.
func (c *Consumer) beginRebuild(ctx context.Context, m Model) (name string, err error) {
	status, err := c.status(ctx, m, 0)
	if err != nil {
		return "", err
	}
	if status.State == Paused {
		return "", paused(m.name)
	}
	wanted := func(tx pgx.Tx, numbers []int) (bool, error) {
		rows, err := tx.Query(ctx, `SELECT b.build, b.lived_at IS NULL, l.build IS NOT NULL FROM consumer.builds AS b
			LEFT JOIN consumer.live AS l USING (model, version, build)
			WHERE b.model = $1 AND b.version = $2 AND NOT b.dropping ORDER BY b.number`, m.name, m.version)
		if err != nil {
			return false, err
		}
		var build, kept string
		var fresh, live bool
		if _, err := pgx.ForEachRow(rows, []any{&build, &fresh, &live}, func() error {
			switch {
			case fresh:
				name = build
			case !live:
				kept = build
			}
			return nil
		}); err != nil {
			return false, err
		}
		switch {
		case name != "":
			return false, nil
		case kept != "":
			return false, fault.Refused(typev1.ErrorReason_ERROR_REASON_BUILD_KEPT, "build %q is still kept beside the live one; drop it first", kept)
		}
		name = buildName(m.name, m.version, nextNumber(numbers))
		return true, nil
	}
	return name, makeBuild(ctx, c.pool, c.log, m, wanted)
}

func paused(model string) error {
	return fault.Refused(typev1.ErrorReason_ERROR_REASON_PROJECTION_PAUSED, "projection %q is paused; resume it first", model)
}

// find returns a build by its name, and the live one of a version.
func find(all []BuildStatus, name string, version int) (b, live BuildStatus) {
	for _, s := range all {
		if s.Name == name && !s.Dropping {
			b = s
		}
		if s.Live && s.Version == version {
			live = s
		}
	}
	return b, live
}

// watchFilling tells how far a build is until it is complete.
func (c *Consumer) watchFilling(ctx context.Context, m Model, name string, tell func(Progress) error) error {
	var r rate
	for {
		all, err := c.buildStatuses(ctx, m.name)
		if err != nil {
			return err
		}
		b, live := find(all, name, m.version)
		if b.Name == "" {
			return fault.Missing(typev1.ErrorReason_ERROR_REASON_BUILD_NOT_FOUND, "build", name)
		}
		if b.pausedAt != nil {
			return paused(m.name)
		}
		p := Progress{Build: name, Events: b.Events, Total: max(b.Events, live.Events), PerSecond: r.of(time.Now(), b.Events)}
		if p.PerSecond > 0 {
			p.Left = time.Duration(float64(p.Total-p.Events) / p.PerSecond * float64(time.Second))
		}
		complete := b.Filled && b.behind <= live.behind+levelLag
		switch {
		case complete:
			p.Phase = Verifying
		case b.Position >= b.Target && !b.Filled:
			p.Phase = Indexing
		}
		if err := tell(p); err != nil || complete {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(progressPause):
		}
	}
}

// rate measures events per second over the last seconds.
type rate []struct {
	at     time.Time
	events int64
}

func (r *rate) of(now time.Time, events int64) float64 {
	*r = append(*r, struct {
		at     time.Time
		events int64
	}{now, events})
	for len(*r) > 2 && now.Sub((*r)[0].at) > rateWindow {
		*r = (*r)[1:]
	}
	first := (*r)[0]
	if d := now.Sub(first.at); d > 0 {
		return float64(events-first.events) / d.Seconds()
	}
	return 0
}

// Switch sends readers to a build of a model, or where that is "" to the one that is kept beside the live one, once it has all
// that the live one has. It fails with BUILD_NOT_FOUND and BUILD_NOT_FILLED, and with PROJECTION_LAG where the build lags.
func (c *Consumer) Switch(ctx context.Context, model, to string) (Status, error) {
	m, err := c.model(model)
	if err != nil {
		return Status{}, err
	}
	all, err := c.buildStatuses(ctx, m.name)
	if err != nil {
		return Status{}, err
	}
	var b BuildStatus
	for _, s := range all {
		if s.Version == m.version && !s.Dropping && (s.Name == to || to == "" && !s.Live) {
			b = s
		}
	}
	switch {
	case b.Name == "" && to == "":
		return Status{}, &fault.Fault{
			Kind: fault.NotFound, Reason: typev1.ErrorReason_ERROR_REASON_BUILD_NOT_FOUND, Message: fmt.Sprintf("there is no other build of %s", m.name),
		}
	case b.Name == "":
		return Status{}, fault.Missing(typev1.ErrorReason_ERROR_REASON_BUILD_NOT_FOUND, "build", to)
	case !b.Filled:
		return Status{}, fault.Refused(typev1.ErrorReason_ERROR_REASON_BUILD_NOT_FILLED, "build %q is not filled yet", b.Name)
	}
	if err := c.switchTo(ctx, m, b.Name); err != nil {
		return Status{}, err
	}
	return c.Status(ctx, model)
}

// switchTo sends readers to a build that is filled: by one row, and at a moment when it has all that the live one has, in each
// partition and in each report and list.
func (c *Consumer) switchTo(ctx context.Context, m Model, to string) error {
	waiting, cancel := Sooner(ctx)
	defer cancel()
	waiting, cancel = context.WithTimeout(waiting, levelTimeout)
	defer cancel()
	for {
		switched := false
		err := pgx.BeginFunc(ctx, c.pool, func(tx pgx.Tx) error {
			if err := lockBuilds(ctx, tx, m.name); err != nil {
				return err
			}
			tag, err := tx.Exec(ctx, `UPDATE consumer.live AS l SET build = $3 WHERE model = $1 AND version = $2
				AND NOT EXISTS (SELECT FROM consumer.checkpoints AS has JOIN consumer.checkpoints AS other USING (partition)
					WHERE has.build = l.build AND other.build = $3 AND has.event_position > other.event_position)
				AND NOT EXISTS (SELECT partition, name, version FROM consumer.relations WHERE build = l.build AND partition >= 0
					EXCEPT SELECT partition, name, version FROM consumer.relations WHERE build = $3)
				AND EXISTS (SELECT FROM consumer.builds WHERE build = $3 AND filled_at IS NOT NULL AND NOT dropping)`, m.name, m.version, to)
			if err != nil {
				return err
			}
			switched = tag.RowsAffected() == 1
			_, err = tx.Exec(ctx, `UPDATE consumer.builds SET lived_at = coalesce(lived_at, clock_timestamp()) WHERE build = $1 AND $2`, to, switched)
			return err
		})
		if err != nil {
			return fmt.Errorf("switch %s to %s: %w", m.name, to, err)
		}
		if switched {
			c.logger.Info("readers are sent to another build", "model", m.name, "build", to)
			c.hurry()
			return nil
		}
		select {
		case <-waiting.Done():
			return fault.Down(typev1.ErrorReason_ERROR_REASON_PROJECTION_LAG, fmt.Sprintf("build %q lags behind the one that readers are sent to", to), waiting.Err())
		case <-time.After(levelPause):
		}
	}
}

// DropBuild removes a build of one of the models, of whatever version, with its tables, once nobody reads or runs it any more. It
// fails with BUILD_NOT_FOUND, and with BUILD_IN_USE for one that readers are sent to, or that processes of another version run.
func (c *Consumer) DropBuild(ctx context.Context, name string) error {
	m, err := c.startDropping(ctx, name)
	if err != nil {
		return err
	}
	c.hurry()
	waiting, cancel := Sooner(ctx)
	defer cancel()
	for begun := time.Now(); ; {
		var run bool
		if err := c.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM consumer.members WHERE build = $1 AND NOT gone AND seen_at > clock_timestamp() - $2::interval)`,
			name, leaseTime).Scan(&run); err != nil {
			return fmt.Errorf("drop %s: %w", name, err)
		}
		if !run && time.Since(begun) > 2*liveTime { // so that no reader goes there any more
			break
		}
		select {
		case <-waiting.Done():
			return fault.Down(typev1.ErrorReason_ERROR_REASON_DEPENDENCY_UNAVAILABLE, fmt.Sprintf("build %q is still being removed; ask again", name), waiting.Err())
		case <-time.After(levelPause):
		}
	}
	err = pgx.BeginFunc(ctx, c.pool, func(tx pgx.Tx) error {
		if err := lockBuilds(ctx, tx, m); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "DROP SCHEMA IF EXISTS "+pgx.Identifier{name}.Sanitize()+" CASCADE"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `DELETE FROM consumer.builds WHERE build = $1`, name)
		return err
	})
	if err != nil {
		return fmt.Errorf("drop %s: %w", name, err)
	}
	c.logger.Info("a build is dropped", "build", name)
	return nil
}

// startDropping has nobody run the build any more, and tells which model it is of.
func (c *Consumer) startDropping(ctx context.Context, name string) (model string, err error) {
	missing := fault.Missing(typev1.ErrorReason_ERROR_REASON_BUILD_NOT_FOUND, "build", name)
	err = c.pool.QueryRow(ctx, `SELECT model FROM consumer.builds WHERE build = $1`, name).Scan(&model)
	if errors.Is(err, pgx.ErrNoRows) || err != nil && notMadeYet(err) == nil {
		return "", missing
	} else if err != nil {
		return "", fmt.Errorf("drop %s: %w", name, err)
	}
	m, err := c.model(model)
	if err != nil {
		return "", missing // it is another service's
	}
	err = pgx.BeginFunc(ctx, c.pool, func(tx pgx.Tx) error {
		if err := lockBuilds(ctx, tx, model); err != nil {
			return err
		}
		var version int
		var live, run bool
		err := tx.QueryRow(ctx, `SELECT version, EXISTS (SELECT FROM consumer.live AS l WHERE l.build = b.build),
				EXISTS (SELECT FROM consumer.members AS m WHERE m.build = b.build AND NOT gone AND seen_at > clock_timestamp() - $2::interval)
			FROM consumer.builds AS b WHERE build = $1`, name, leaseTime).Scan(&version, &live, &run)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return missing
		case err != nil:
			return err
		case live && version == m.version:
			return fault.Refused(typev1.ErrorReason_ERROR_REASON_BUILD_IN_USE, "readers are sent to build %q", name)
		case run && version != m.version:
			return fault.Refused(typev1.ErrorReason_ERROR_REASON_BUILD_IN_USE, "processes of version %d run build %q", version, name)
		}
		if _, err := tx.Exec(ctx, `DELETE FROM consumer.live WHERE build = $1`, name); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `WITH b AS (UPDATE consumer.builds SET dropping = true WHERE build = $1 RETURNING model, version, number)
			UPDATE consumer.live AS l SET dropped = greatest(l.dropped, b.number) FROM b WHERE l.model = b.model AND l.version = b.version`, name)
		return err
	})
	return model, err
}

// lockBuilds has one transaction at a time change which builds of a model there are.
func lockBuilds(ctx context.Context, tx pgx.Tx, model string) error {
	if _, err := tx.Exec(ctx, breakOff(batchTimeout)); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", buildsLock(model))
	return err
}

func buildsLock(model string) string { return "purser builds of " + model }
