package consumer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// headTimeout bounds the question where the log ends, beside which everything else can be told.
const headTimeout = 2 * time.Second

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
	Name       string
	Version    int
	Categories []string
	Derived    []string // the names of its reports and lists
	State      State
	PausedAt   time.Time // zero unless Paused
	// Build is the one that readers are sent to, or the first one where there is none yet; what follows is of it.
	Build string
	// Position is up to where everything is applied, Head where the log ends: 0 where the store does not answer. Other
	// streams' events lie in between as well, so they may differ for good.
	Position, Head eventlog.Position
	// Lag is for how long it has lacked something that the log may hold; 0 while it lacks nothing.
	Lag          time.Duration
	Parked       int
	OldestParked time.Time // zero where nothing is parked
	// Builds are all that there are of the model, those of other versions included, in the order of versions and numbers.
	Builds []BuildStatus
}

// BuildStatus is how a build is.
type BuildStatus struct {
	Name            string
	Version, Number int
	CreatedAt       time.Time
	Live, Filled    bool // readers are sent to it; it has come to where the log ended when it was begun, and has its indexes
	Dropping        bool // it is being removed
	Processes       int  // that run it
	Partitions      int  // that are run, of 16
	Position        eventlog.Position
	Target          eventlog.Position // where the log ended when the build was begun
	Events          int64             // that it has passed
	Parked          int

	caughtUp     bool
	behind       time.Duration
	oldestParked *time.Time
	pausedAt     *time.Time
}

// Statuses tells how every model of the consumer is, whoever runs it.
func (c *Consumer) Statuses(ctx context.Context) ([]Status, error) {
	head := c.head(ctx)
	all := make([]Status, len(c.models))
	for i, m := range c.models {
		var err error
		if all[i], err = c.status(ctx, m, head); err != nil {
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

// Pause has a model rest where it is, in all its builds, until it is told to resume, whoever runs it, and also after a restart.
func (c *Consumer) Pause(ctx context.Context, model string) (Status, error) {
	return c.order(ctx, model, `INSERT INTO consumer.paused (model) VALUES ($1) ON CONFLICT DO NOTHING`)
}

// Resume has a model that is paused go on.
func (c *Consumer) Resume(ctx context.Context, model string) (Status, error) {
	return c.order(ctx, model, `DELETE FROM consumer.paused WHERE model = $1`)
}

func (c *Consumer) order(ctx context.Context, model, sql string) (Status, error) {
	m, err := c.model(model)
	if err != nil {
		return Status{}, err
	}
	if _, err := c.pool.Exec(ctx, sql, m.name); err != nil && notMadeYet(err) == nil {
		return Status{}, fault.Down(typev1.ErrorReason_ERROR_REASON_DEPENDENCY_UNAVAILABLE, "the tables of the projections are not made yet", err)
	} else if err != nil {
		return Status{}, fmt.Errorf("order something of %s: %w", model, err)
	}
	c.hurry()
	return c.status(ctx, m, c.head(ctx))
}

// model finds one of those that this consumer runs; whether others run one of the name it can't tell.
func (c *Consumer) model(name string) (Model, error) {
	f := fault.Missing(typev1.ErrorReason_ERROR_REASON_PROJECTION_NOT_FOUND, "projection", name)
	f.Message = fmt.Sprintf("projection %q is not run by this projector, which runs %s", name, c.names())
	for _, m := range c.models {
		if m.name == name {
			return m, nil
		}
		if slices.Contains(m.derived, name) {
			f.Message = fmt.Sprintf("%q is no projection of its own, but kept with projection %q", name, m.name)
		}
	}
	return Model{}, f
}

func (c *Consumer) names() string {
	names := make([]string, len(c.models))
	for i, m := range c.models {
		names[i] = m.name
	}
	return strings.Join(names, ", ")
}

// Build tells how a build is: of one model, or where that is "" of any that the consumer runs. It fails with BUILD_NOT_FOUND.
func (c *Consumer) Build(ctx context.Context, model, name string) (BuildStatus, error) {
	f := fault.Missing(typev1.ErrorReason_ERROR_REASON_BUILD_NOT_FOUND, "build", name)
	f.Message = fmt.Sprintf("no projection that this projector runs has a build %q; it runs %s", name, c.names())
	among := c.models
	if model != "" {
		m, err := c.model(model)
		if err != nil {
			return BuildStatus{}, err
		}
		among = []Model{m}
		f.Message = fmt.Sprintf("projection %q has no build %q", model, name)
	}
	for _, m := range among {
		builds, err := c.buildStatuses(ctx, m.name)
		if err != nil {
			return BuildStatus{}, err
		}
		if i := slices.IndexFunc(builds, func(b BuildStatus) bool { return b.Name == name }); i >= 0 {
			return builds[i], nil
		}
	}
	return BuildStatus{}, f
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

// buildStatuses tells how the builds of a model are.
func (c *Consumer) buildStatuses(ctx context.Context, model string) ([]BuildStatus, error) {
	rows, err := c.pool.Query(ctx, `
		SELECT b.build, b.version, b.number, b.created_at, l.build IS NOT NULL, b.filled_at IS NOT NULL, b.dropping,
		       m.processes, (SELECT count(*) FROM consumer.leases WHERE build = b.build AND expires_at > clock_timestamp()),
		       p.position, b.target, p.events, m.caught_up,
		       coalesce(CASE WHEN m.processes > 0 THEN m.behind ELSE clock_timestamp() - m.seen_at END, interval '0'),
		       k.keys, k.oldest, (SELECT paused_at FROM consumer.paused WHERE model = b.model)
		FROM consumer.builds AS b LEFT JOIN consumer.live AS l USING (model, version, build),
		LATERAL (SELECT coalesce(min(position), 0) AS position, coalesce(sum(events), 0)::bigint AS events
		         FROM consumer.checkpoints WHERE build = b.build) AS p,
		LATERAL (SELECT count(*) FILTER (WHERE alive) AS processes, coalesce(bool_and(caught_up) FILTER (WHERE alive), false) AS caught_up,
		                max(clock_timestamp() - behind_since) FILTER (WHERE alive) AS behind, max(coalesce(behind_since, seen_at)) AS seen_at
		         FROM (SELECT *, NOT gone AND seen_at > clock_timestamp() - $2::interval AS alive
		               FROM consumer.members WHERE build = b.build) AS all_members) AS m,
		LATERAL (SELECT count(*) AS keys, min(parked_at) AS oldest FROM consumer.parked WHERE build = b.build) AS k
		WHERE b.model = $1 ORDER BY b.version, b.number`, model, leaseTime)
	var all []BuildStatus
	if err == nil {
		var b BuildStatus
		_, err = pgx.ForEachRow(rows, []any{
			&b.Name, &b.Version, &b.Number, &b.CreatedAt, &b.Live, &b.Filled, &b.Dropping, &b.Processes, &b.Partitions,
			&b.Position, &b.Target, &b.Events, &b.caughtUp, &b.behind, &b.Parked, &b.oldestParked, &b.pausedAt,
		}, func() error { all = append(all, b); return nil })
	}
	if err := notMadeYet(err); err != nil {
		return nil, fmt.Errorf("ask for the builds of %s: %w", model, err)
	}
	return all, nil
}

func (c *Consumer) status(ctx context.Context, m Model, head eventlog.Position) (Status, error) {
	all, err := c.buildStatuses(ctx, m.name)
	if err != nil {
		return Status{}, err
	}
	s := Status{
		Name: m.name, Version: m.version, Categories: m.categories, Derived: m.derived, Head: head,
		Build: firstBuild(m.name, m.version), Builds: all,
	}
	for _, b := range all {
		if b.Version == m.version && (b.Live || b.Name == s.Build) {
			s.of(b)
		}
		if b.Version == m.version && b.Live {
			break
		}
	}
	return s, nil
}

// of sets what a status says of the build that it is about.
func (s *Status) of(b BuildStatus) {
	s.Build, s.Position, s.Lag, s.Parked = b.Name, b.Position, max(b.behind, 0), b.Parked
	if b.oldestParked != nil {
		s.OldestParked = *b.oldestParked
	}
	switch {
	case b.pausedAt != nil:
		s.State, s.PausedAt = Paused, *b.pausedAt
	case b.Processes > 0 && b.caughtUp && b.Live && b.Partitions == partitions:
		s.State = Live
	case b.Processes > 0:
		s.State = CatchingUp
	default:
		s.State = Stopped
	}
}
