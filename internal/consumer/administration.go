package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	// orderPoll is how often an owner looks for orders of an operator, reportPause how often it says how it is.
	orderPoll   = 500 * time.Millisecond
	reportPause = time.Second
	// silence is for how long an owner may not be heard of before it is taken for gone.
	silence = 5 * time.Second
	// headTimeout bounds the question where the log ends, beside which everything else can be told.
	headTimeout = 2 * time.Second
)

// State is what a model is doing.
type State uint8

const (
	Stopped    State = iota // nobody who runs it has been heard of for a while
	CatchingUp              // it is run, and has not come to the end of the log
	Live                    // it follows the log
	Paused                  // an operator wants it to rest
)

// Status is how a model is, as seen from any process.
type Status struct {
	Name, Build string
	Version     int
	Categories  []string
	Derived     []string // the names of its reports and lists
	State       State
	PausedAt    time.Time // zero unless Paused
	// Position is up to where everything is applied, Head where the log ends: 0 where the store does not answer. Other
	// streams' events lie in between as well, so they may differ for good.
	Position, Head eventlog.Position
	// Lag is for how long it has lacked something that the log may hold; 0 while it lacks nothing.
	Lag          time.Duration
	Parked       int
	OldestParked time.Time // zero where nothing is parked
}

// Statuses tells how every model of the consumer is, whoever runs it.
func (c *Consumer) Statuses(ctx context.Context) ([]Status, error) {
	head := c.head(ctx)
	all := make([]Status, len(c.lanes))
	for i, l := range c.lanes {
		var err error
		if all[i], err = c.status(ctx, l.model, head); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Status tells how a model is, by its name.
func (c *Consumer) Status(ctx context.Context, model string) (Status, error) {
	m, err := c.model(model)
	if err != nil {
		return Status{}, err
	}
	return c.status(ctx, m, c.head(ctx))
}

// Pause has a model rest where it is until it is told to resume, whoever runs it, and also after a restart.
func (c *Consumer) Pause(ctx context.Context, model string) (Status, error) {
	return c.order(ctx, model, `INSERT INTO consumer.administration AS a (build, paused_at) VALUES ($1, clock_timestamp())
		ON CONFLICT (build) DO UPDATE SET paused_at = coalesce(a.paused_at, EXCLUDED.paused_at)`)
}

// Resume has a model that is paused go on.
func (c *Consumer) Resume(ctx context.Context, model string) (Status, error) {
	return c.order(ctx, model, `UPDATE consumer.administration SET paused_at = NULL WHERE build = $1`)
}

func (c *Consumer) order(ctx context.Context, model, sql string) (Status, error) {
	m, err := c.model(model)
	if err != nil {
		return Status{}, err
	}
	if _, err := c.pool.Exec(ctx, sql, m.build); err != nil && notMadeYet(err) == nil {
		return Status{}, fault.Down(typev1.ErrorReason_ERROR_REASON_DEPENDENCY_UNAVAILABLE, "the tables of the projections are not made yet", err)
	} else if err != nil {
		return Status{}, fmt.Errorf("order something of %s: %w", model, err)
	}
	return c.status(ctx, m, c.head(ctx))
}

// model finds one of those that this consumer runs.
func (c *Consumer) model(name string) (Model, error) {
	for _, l := range c.lanes {
		if l.model.name == name {
			return l.model, nil
		}
	}
	return Model{}, fault.Missing(typev1.ErrorReason_ERROR_REASON_PROJECTION_NOT_FOUND, "projection", name)
}

func (c *Consumer) head(ctx context.Context) eventlog.Position {
	ctx, cancel := context.WithTimeout(ctx, headTimeout)
	defer cancel()
	head, err := c.log.Head(ctx)
	if err != nil {
		c.logger.Warn("the end of the log can't be told", "err", err)
		return 0
	}
	return head
}

// administration is what is known of a build beside its tables.
type administration struct {
	PausedAt     *time.Time
	Heard        bool
	CaughtUp     bool
	Behind       time.Duration
	Position     int64
	Parked       int
	OldestParked *time.Time
}

func (c *Consumer) administration(ctx context.Context, m Model) (administration, error) {
	rows, err := c.pool.Query(ctx, `
		SELECT paused_at, coalesce(heard, false), coalesce(caught_up, false),
		       coalesce(clock_timestamp() - CASE WHEN heard THEN behind_since ELSE coalesce(behind_since, seen_at) END, interval '0'),
		       coalesce((SELECT min(position) FROM consumer.checkpoints WHERE build = $1), 0),
		       (SELECT count(*) FROM consumer.parked WHERE build = $1),
		       (SELECT min(parked_at) FROM consumer.parked WHERE build = $1)
		FROM (SELECT $1::text AS build) AS b
		LEFT JOIN (SELECT *, seen_at > clock_timestamp() - $2::interval AS heard FROM consumer.administration) AS a USING (build)`, m.build, silence)
	var a administration
	if err == nil {
		a, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[administration])
	}
	if err := notMadeYet(err); err != nil {
		return a, fmt.Errorf("ask for the state of %s: %w", m.name, err)
	}
	return a, nil
}

func (c *Consumer) status(ctx context.Context, m Model, head eventlog.Position) (Status, error) {
	a, err := c.administration(ctx, m)
	if err != nil {
		return Status{}, err
	}
	s := Status{
		Name: m.name, Build: m.build, Categories: m.categories, State: Stopped,
		Position: eventlog.Position(a.Position), Head: head, Lag: max(a.Behind, 0), Parked: a.Parked,
	}
	for i, r := range m.shape.relations() {
		if i == 0 {
			s.Version = r.version
		} else {
			s.Derived = append(s.Derived, r.name)
		}
	}
	if a.OldestParked != nil {
		s.OldestParked = *a.OldestParked
	}
	switch {
	case a.PausedAt != nil:
		s.State, s.PausedAt = Paused, *a.PausedAt
	case a.Heard && a.CaughtUp:
		s.State = Live
	case a.Heard:
		s.State = CatchingUp
	}
	return s, nil
}

// errPaused ends the work on a model that an operator wants to rest.
var errPaused = errors.New("paused by an operator")

// obey looks for orders, and carries out those that the owner of the model has to.
func (l *lane) obey(ctx context.Context) error {
	paused, err := l.orderedToRest(ctx)
	if err != nil {
		return err
	}
	if paused {
		return errPaused
	}
	if len(l.parked) == 0 {
		return nil
	}
	rows, err := l.pool.Query(ctx, `SELECT key, wanted FROM consumer.parked WHERE build = $1 AND wanted IS NOT NULL ORDER BY key`, l.model.build)
	if err != nil {
		return fmt.Errorf("look for orders: %w", err)
	}
	wishes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[wish])
	if err != nil {
		return fmt.Errorf("look for orders: %w", err)
	}
	for _, w := range wishes {
		if err := l.unpark(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

func (l *lane) orderedToRest(ctx context.Context) (paused bool, err error) {
	err = l.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM consumer.administration WHERE build = $1 AND paused_at IS NOT NULL)`, l.model.build).Scan(&paused)
	if err != nil {
		return false, fmt.Errorf("look whether it is paused: %w", err)
	}
	l.paused.Store(paused)
	return paused, nil
}

// rest waits for as long as the model is paused.
func (l *lane) rest(ctx context.Context) error {
	for said := false; ; said = true {
		paused, err := l.orderedToRest(ctx)
		if err != nil {
			return err
		}
		switch {
		case paused && !said:
			l.logger.Info("a read model is paused by an operator", "model", l.model.name)
		case !paused && said:
			l.logger.Info("a read model goes on", "model", l.model.name)
		}
		if !paused {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(orderPoll):
		}
	}
}

// report says again and again how the model is, for whoever asks in another process. That is all it is for, so it costs no
// fsync, and what can't be said now is said the next time.
func (l *lane) report(ctx context.Context) {
	for {
		var behind *time.Duration
		if lag := l.lag(time.Now()); lag > 0 {
			behind = &lag
		}
		reportCtx, cancel := context.WithTimeout(ctx, silence)
		_, err := l.pool.Exec(reportCtx, `
			INSERT INTO consumer.administration (build, seen_at, caught_up, behind_since)
			SELECT $1, clock_timestamp(), $2, clock_timestamp() - $3::interval FROM set_config('synchronous_commit', 'off', true)
			ON CONFLICT (build) DO UPDATE SET seen_at = EXCLUDED.seen_at, caught_up = EXCLUDED.caught_up, behind_since = EXCLUDED.behind_since`,
			l.model.build, l.caughtUp.Load(), behind)
		cancel()
		if err != nil && ctx.Err() == nil {
			l.logger.Debug("how a read model is can't be told", "model", l.model.name, "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(reportPause):
		}
	}
}
