// Package consumer keeps what is derived from the event log: it follows the log and folds each event, once and in order,
// into tables in Postgres.
//
// A model is a [Fold] with the [Report]s and [List]s derived from it, or a [Journal]. Rows, derived entries and checkpoints
// are written in one transaction, so they are all there or none is. A checkpoint is moved by compare-and-swap under the
// token of its owner, so a process that was only thought dead can't write. A row remembers how far each stream is folded
// into it: what it has seen is skipped, and a gap refolds the key from the log. An event that can't be applied parks its
// key; the others go on. When Postgres or the event store is away, everything pauses and goes on by itself.
//
// How: the key of an event picks one of 16 partitions. Any number of processes run a model; each partition is leased to one
// of them (lease.go), which has a share of about the same size as the others. In a process one subscription (feed.go) is
// fanned out to lanes (lane.go), each of which moves partitions of one build together. Partitions that are new here, behind
// or failing have lanes of their own, with subscriptions of their own, until they are level (runner.go).
//
// A build (build.go) is one set of tables of a model. Readers find the live one by a [Reader]. Another one can be built beside
// it, and readers be sent there by one row (rebuild.go).
//
// Operators give their orders in Postgres, by way of any process, and whoever has the partition carries them out: to try
// a parked key again, to rest. [Audit] compares what is stored with what the log adds up to.
package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/purserhq/purser/internal/eventlog"
)

// Decoder reads stored events through the current schema.
type Decoder interface {
	Decode(r eventlog.Recorded) (eventlog.Event, error)
}

// History is what is needed of the event log to fold a key from its first event.
type History interface {
	Decoder
	Read(ctx context.Context, stream string, from eventlog.Revision, max int) ([]eventlog.Recorded, error)
}

// Log is what a consumer needs of the event log.
type Log interface {
	History
	Subscribe(ctx context.Context, categories []string, after eventlog.Position, deliver func(context.Context, eventlog.Delivery) error) error
	Head(ctx context.Context) (eventlog.Position, error)
	Has(ctx context.Context, at eventlog.Position, id uuid.UUID) (bool, error)
	Identity(ctx context.Context) (string, error)
}

// roundTimeout bounds one look at Postgres: well below the time of a lease.
const roundTimeout = leaseTime / 2

// limits bound what takes the longer the more events keys have.
type limits struct {
	// unpark is for how long a parked key may be folded anew.
	unpark time.Duration
	// inBatch is how many events of a key may be folded anew for a batch, all of whose keys wait for it. One that has more is parked:
	// to be unparked it is folded beside the batches.
	inBatch int
	// sampled is about how many events the keys may have together that are compared before readers are sent to a build, and a tenth
	// of it how many each: those with longer histories are not compared.
	sampled int
}

var defaultLimits = limits{unpark: 10 * time.Minute, inBatch: 100_000, sampled: 200_000}

// Consumer runs models, together with the other consumers of the same models, in whatever process.
type Consumer struct {
	pool       *pgxpool.Pool
	log        Log
	models     []Model
	categories []string
	feed       *feed
	member     uuid.UUID
	changed    chan struct{}
	notify     *notifier
	rounds     chan struct{} // wakes the loop that extends leases
	finishing  chan struct{} // wakes the one that finishes builds
	logger     *slog.Logger
	metrics    *Metrics
	limits     limits

	// begin begins a goroutine that Run waits for, and is there while it runs.
	begin func(func(context.Context) error)

	mu      sync.Mutex
	runners map[string]*runner // by build
	shares  map[string]int     // of the builds' partitions
	renewed time.Time          // when the leases were last extended
}

// New returns a consumer of models. The categories are all that are written to the log, so that a model moves on
// past events that it does not read, and readers need not wait for it.
func New(pool *pgxpool.Pool, log Log, name string, categories []string, models []Model, logger *slog.Logger, m *Metrics) *Consumer {
	c := &Consumer{
		pool: pool, log: log, models: models, categories: slices.Clone(categories), feed: newFeed(log, categories), member: uuid.New(),
		changed: make(chan struct{}, 1), rounds: make(chan struct{}, 1), finishing: make(chan struct{}, 1),
		logger: logger.With("consumer", name), metrics: m, limits: defaultLimits,
		runners: map[string]*runner{}, shares: map[string]int{},
	}
	c.notify = newNotifier(pool, c.logger)
	m.watch(c)
	return c
}

var errDeaf = errors.New("the event store is not heard of")

// Ready returns nil while every model follows the log in all partitions that are this consumer's, and has caught up with it as
// it was when they were taken. One that can't extend its leases, or pauses, is not ready. Builds without readers don't count.
func (c *Consumer) Ready(context.Context) error { return c.ready(false) }

// ReadyOrPaused is [Consumer.Ready] but for models that an operator has paused: that they lag is what was asked for. What
// acts on what is derived goes by Ready.
func (c *Consumer) ReadyOrPaused(context.Context) error { return c.ready(true) }

func (c *Consumer) ready(orPaused bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.feed.isDeaf():
		return errDeaf
	case time.Since(c.renewed) > leaseTime:
		return errors.New("it can't extend its leases")
	}
	for _, m := range c.models {
		followed := false
		for name, r := range c.runners {
			if r.model.name == m.name && r.isLive() {
				caughtUp, _ := r.state(time.Now())
				followed = caughtUp && (c.shares[name] == 0 || r.owned() > 0) || orPaused && r.isPaused()
			}
		}
		if !followed {
			return fmt.Errorf("%s has not caught up", m.name)
		}
	}
	return nil
}

// Level are the partitions of a model's live build that this consumer runs, and that have had all that the log held when they
// were taken: what may be acted on. There are none while it can't extend its leases, or an operator has paused the model.
func (c *Consumer) Level(model string) []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.renewed) > leaseTime {
		return nil
	}
	for _, r := range c.runners {
		if r.model.name == model && r.isLive() && !r.isPaused() {
			return r.level()
		}
	}
	return nil
}

// Changed receives after one or more transactions of this consumer. It is for one reader.
func (c *Consumer) Changed() <-chan struct{} { return c.changed }

// tell lets the one who waits for changes know of some.
func (c *Consumer) tell() { wake(c.changed) }

// hurry has the consumer look for what there is to do at once.
func (c *Consumer) hurry() {
	wake(c.rounds)
	wake(c.finishing)
}

func wake(sleeper chan<- struct{}) {
	select {
	case sleeper <- struct{}{}:
	default: // it will look anyway
	}
}

// Run works until ctx ends, and returns nil then, all leases given up. It fails only where the tables belong to another log.
func (c *Consumer) Run(ctx context.Context) error {
	outer := ctx
	g, ctx := errgroup.WithContext(ctx)
	c.begin = func(f func(context.Context) error) { g.Go(func() error { return f(ctx) }) }
	c.begin(func(ctx context.Context) error { return c.repeat(ctx, "feed", nil, c.feed.run) })
	c.begin(c.notify.run)
	c.begin(func(ctx context.Context) error {
		select {
		case <-c.feed.begun: // who does not reach the event store keeps nothing from others
		case <-ctx.Done():
			return nil
		}
		return c.repeat(ctx, "leases", c.rounds, c.round)
	})
	c.begin(func(ctx context.Context) error { return c.repeat(ctx, "builds", c.finishing, c.finishBuilds) })
	err := g.Wait()
	if left := leave(ctx, c.pool, c.member); left != nil {
		c.logger.Debug("leases can't be given up, and run out by themselves", "err", left)
	}
	if outer.Err() != nil {
		return nil
	}
	return err
}

// repeat does something again and again until ctx ends. What fails is tried again.
func (c *Consumer) repeat(ctx context.Context, what string, sooner <-chan struct{}, do func(context.Context) error) error {
	for failing := false; ; {
		err := do(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !failing:
			c.logger.Warn("a consumer pauses", "at", what, "err", err)
		case err == nil && failing:
			c.logger.Info("a consumer goes on", "at", what)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-sooner:
		case <-time.After(roundPause):
		}
	}
}

// round extends the leases, and brings the runners to what Postgres says: which builds there are, which partitions are ours,
// and what operators want.
func (c *Consumer) round(ctx context.Context) error {
	if c.renewedAt().IsZero() {
		if err := migrateUp(ctx, c.pool); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	all, err := builds(ctx, c.pool, c.models)
	if err != nil {
		return fmt.Errorf("look for builds: %w", err)
	}
	paused, wishes, err := c.wanted(ctx)
	if err != nil {
		return fmt.Errorf("look for orders: %w", err)
	}
	c.arrange(all, paused, wishes)
	started, deaf := time.Now(), c.feed.isDeaf()
	holdings, err := renew(ctx, c.pool, c.member, deaf, c.reports())
	if err != nil {
		return err
	}
	for _, r := range c.running() { // first of all: nobody may act on what has become another's
		r.keep(holdings[r.name].ours)
	}
	if deaf {
		return errDeaf // until it hears of the event store again, others may run what it ran
	}
	c.mu.Lock()
	first := c.renewed.IsZero()
	c.renewed = started
	c.mu.Unlock()
	if first {
		c.hurry()
	}
	for _, r := range c.running() {
		if err := c.balance(ctx, r, holdings[r.name]); err != nil {
			return err
		}
	}
	return nil
}

func (c *Consumer) renewedAt() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.renewed
}

func (c *Consumer) running() []*runner {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*runner, 0, len(c.runners))
	for _, r := range c.runners {
		all = append(all, r)
	}
	return all
}

// arrange has a runner for every build, and no others.
func (c *Consumer) arrange(all map[string][]build, paused map[string]bool, wishes map[string][]wish) {
	c.mu.Lock()
	defer c.mu.Unlock()
	there := map[string]bool{}
	for _, m := range c.models {
		for _, b := range all[m.name] {
			there[b.name] = true
			r, ok := c.runners[b.name]
			if !ok {
				r = c.newRunner(m, b)
				c.runners[b.name] = r
			}
			r.update(b, paused[m.name], wishes[b.name])
		}
	}
	for name, r := range c.runners {
		if !there[name] {
			r.stop()
			delete(c.runners, name)
			delete(c.shares, name)
		}
	}
}

func (c *Consumer) reports() []report {
	var all []report
	for _, r := range c.running() {
		caughtUp, behind := r.state(time.Now())
		all = append(all, report{r.name, caughtUp, behind})
	}
	return all
}

// balance gives up what is more than our share of a build, or takes what is free of it.
func (c *Consumer) balance(ctx context.Context, r *runner, h *holding) error {
	share := h.share()
	owned := r.owned()
	c.mu.Lock()
	c.shares[r.name] = share
	c.mu.Unlock()
	if owned > share {
		r.giveUp(owned - share)
		return nil
	}
	wanted := some(h.free, share-owned)
	for p := range h.ours { // ours, without our knowing: the answer to a claim was lost, or a lane has lost it
		if !r.owns(p) {
			wanted = append(wanted, p)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	taken, err := claim(ctx, c.pool, c.member, r.name, wanted)
	if err != nil {
		return err
	}
	r.take(taken)
	return nil
}

// wanted is what operators want: which models are to rest, and of which builds which keys are to be tried again.
func (c *Consumer) wanted(ctx context.Context) (paused map[string]bool, wishes map[string][]wish, err error) {
	paused, wishes = map[string]bool{}, map[string][]wish{}
	rows, err := c.pool.Query(ctx, `SELECT model FROM consumer.paused`)
	if err != nil {
		return nil, nil, err
	}
	var model, build string
	if _, err := pgx.ForEachRow(rows, []any{&model}, func() error { paused[model] = true; return nil }); err != nil {
		return nil, nil, err
	}
	rows, err = c.pool.Query(ctx, `SELECT build, key, wanted FROM consumer.parked WHERE wanted IS NOT NULL ORDER BY build, key`)
	if err != nil {
		return nil, nil, err
	}
	var w wish
	_, err = pgx.ForEachRow(rows, []any{&build, &w.Key, &w.Attempt}, func() error { wishes[build] = append(wishes[build], w); return nil })
	return paused, wishes, err
}

// finishBuilds makes the first build of every model that has none, and finishes those that have come to their target.
func (c *Consumer) finishBuilds(ctx context.Context) error {
	if c.renewedAt().IsZero() {
		return nil // the tables that tell may not be there yet
	}
	look, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	all, err := builds(look, c.pool, c.models)
	if err != nil {
		return fmt.Errorf("look for builds: %w", err)
	}
	for _, m := range c.models {
		if len(all[m.name]) == 0 {
			none := func(_ pgx.Tx, numbers []int) (bool, error) { return len(numbers) == 0, nil }
			if err := makeBuild(look, c.pool, c.log, m, none); err != nil {
				return err
			}
			c.hurry()
		}
		for _, b := range all[m.name] {
			if b.filled {
				continue
			}
			filled, err := c.finish(ctx, m, b) // which may take as long as it takes
			if err != nil {
				return fmt.Errorf("finish %s: %w", b.name, err)
			}
			if filled {
				c.logger.Info("a build is filled", "build", b.name)
				c.hurry()
			}
		}
	}
	return nil
}
