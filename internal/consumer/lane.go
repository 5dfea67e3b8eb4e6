package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"

	"github.com/purserhq/purser/internal/eventlog"
)

const (
	// maxBatch bounds the events of one transaction.
	maxBatch   = queueLength
	firstPause = 50 * time.Millisecond
	maxPause   = 5 * time.Second
	// tempo is the least time between the beginnings of two batches of a lane that follows the feed: one that comes alone is
	// applied at once, and under load more go together.
	tempo = 10 * time.Millisecond
	// ordersPause is how often a lane looks for orders while there are no events.
	ordersPause = 200 * time.Millisecond
)

// lane is partitions of a build that move together, each batch in one transaction. It reads the log by a subscription of
// its own from where its partitions stand until it meets the feed, and then follows that, or joins the lane that does.
type lane struct {
	r *runner

	// caughtUp: the partitions have had all that the log held when they were taken over, and follow it.
	caughtUp atomic.Bool
	// behind is since when they may lack something, in Unix nanoseconds; 0 while they lack nothing that is known of.
	behind atomic.Int64
	// oldest is since when the first of the parked keys is, in Unix nanoseconds; 0 where none is parked.
	oldest     atomic.Int64
	parkedKeys atomic.Int64

	// parts is changed by the lane itself only, under the runner's mutex.
	parts parts

	// Below: for run.
	position eventlog.Position // everything up to here is applied
	last     anchor
	parked   map[string]time.Time // by key, since when
	pending  []*item              // delivered, and not applied yet
	begun    time.Time            // the last batch
	attempt  *attempt             // to unpark a key
}

func newLane(r *runner, ps parts) *lane {
	l := &lane{r: r, parts: ps, parked: map[string]time.Time{}}
	l.lost()
	return l
}

func (l *lane) logger() *slog.Logger { return l.r.c.logger.With("build", l.r.name) }

func (l *lane) has(partition int) bool {
	return slices.ContainsFunc(l.parts, func(p part) bool { return p.number == partition })
}

var (
	// errPaused ends the work on a model that an operator wants to rest.
	errPaused = errors.New("paused by an operator")
	// errSlow ends the following of the feed by a lane that could not keep up.
	errSlow = errors.New("it could not keep up with the log")
	// errInterrupted ends a lane whose subscription ended: before it goes on, it looks whether the log is still the same.
	errInterrupted = errors.New("the subscription to the event store was interrupted")
	// errDone ends a lane that has no partitions left.
	errDone = errors.New("it has no partitions left")
)

// run keeps the partitions up to date until ctx ends or it has none left. Whatever fails, everything in memory is thrown away
// after a pause and read again, from the checkpoints; only read models of another log are given up.
func (l *lane) run(ctx context.Context) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval, pause.RandomizationFactor = firstPause, maxPause, 0.5
	for {
		started := time.Now()
		err := l.rest(ctx)
		if err == nil {
			err = l.work(ctx)
		}
		l.lost()
		switch {
		case ctx.Err() != nil, errors.Is(err, errDone):
			return nil
		case errors.Is(err, errForeign):
			return err
		case errors.Is(err, errPaused), errors.Is(err, errSlow):
			continue
		}
		if time.Since(started) > maxPause {
			pause.Reset()
		}
		l.r.c.metrics.failures.WithLabelValues(l.r.label()).Inc()
		l.logger().Warn("a read model pauses", "partitions", fmt.Sprint(l.parts.numbers()), "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause.NextBackOff()):
		}
	}
}

// lost notes that nothing is known of the log's present state.
func (l *lane) lost() {
	l.caughtUp.Store(false)
	l.behind.CompareAndSwap(0, time.Now().UnixNano())
}

// lag is for how long the partitions have lacked something.
func (l *lane) lag(now time.Time) time.Duration {
	if since := l.behind.Load(); since != 0 {
		return max(now.Sub(time.Unix(0, since)), 0)
	}
	return 0
}

// rest waits for as long as the model is paused.
func (l *lane) rest(ctx context.Context) error {
	for said := false; ; said = true {
		err := l.obey(ctx)
		switch {
		case err == nil && said:
			l.logger().Info("a read model goes on")
			return nil
		case !errors.Is(err, errPaused):
			return err
		case !said:
			l.logger().Info("a read model is paused by an operator")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(ordersPause):
		}
	}
}

// work brings the partitions level with the log, and follows it, until something fails or none is left.
func (l *lane) work(ctx context.Context) error {
	defer l.abandon()
	if err := l.load(ctx); err != nil {
		return err
	}
	q, err := l.catchUp(ctx)
	if err != nil {
		return err
	}
	defer l.r.unlead(l, q)
	return l.follow(ctx, q)
}

// load reads where the partitions stand. Those that stand elsewhere than most are left to other lanes.
func (l *lane) load(ctx context.Context) error {
	fill, cancel := context.WithTimeout(ctx, fillBatchTimeout)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	store, err := l.r.c.log.Identity(ctx)
	if err != nil {
		return err
	}
	groups, err := stand(ctx, l.r.c.pool, l.r.name, l.parts)
	if err != nil {
		return fmt.Errorf("read checkpoints: %w", err)
	}
	var most parts
	l.last = anchor{}
	for at, ps := range groups {
		if len(ps) > len(most) {
			most, l.last = ps, at
		}
	}
	var still []int
	for _, ps := range groups {
		still = append(still, ps.numbers()...)
	}
	l.r.dropped(slices.DeleteFunc(slices.Clone(l.parts), func(p part) bool { return slices.Contains(still, p.number) }))
	l.keep(most)
	for at, ps := range groups {
		if at != l.last {
			l.r.split(l, ps)
		}
	}
	if len(most) == 0 {
		return errDone
	}
	l.position, l.pending = 0, nil
	for _, p := range most {
		l.position = max(l.position, p.position)
	}
	if err := l.r.current().belongsTo(ctx, l.r.c.log, store, l.position, l.last); err != nil {
		return err
	}
	if err := l.loadParked(ctx); err != nil {
		return err
	}
	return l.fillDerived(fill)
}

// keep goes on with some partitions only.
func (l *lane) keep(ps parts) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	l.parts = ps
}

func (l *lane) loadParked(ctx context.Context) error {
	rows, err := l.r.c.pool.Query(ctx, `SELECT key, parked_at FROM consumer.parked WHERE build = $1`, l.r.name)
	if err != nil {
		return err
	}
	clear(l.parked)
	var key string
	var since time.Time
	if _, err := pgx.ForEachRow(rows, []any{&key, &since}, func() error {
		if l.has(partitionOf(key)) {
			l.parked[key] = since
		}
		return nil
	}); err != nil {
		return fmt.Errorf("read parked keys: %w", err)
	}
	l.showParked()
	return nil
}

// showParked shows how many keys are parked, and since when the first one is.
func (l *lane) showParked() {
	var oldest int64
	for _, since := range l.parked {
		if at := since.UnixNano(); oldest == 0 || at < oldest {
			oldest = at
		}
	}
	l.oldest.Store(oldest)
	l.parkedKeys.Store(int64(len(l.parked)))
}

// follow applies what the feed delivers.
func (l *lane) follow(ctx context.Context, q *queue) error {
	tick := time.NewTicker(ordersPause)
	defer tick.Stop()
	for {
		if err := l.step(ctx, q.items, tick.C, 0, 0); err != nil {
			return err
		}
		select {
		case m := <-l.r.meetings:
			if err := l.meet(ctx, m); err != nil {
				return err
			}
		default:
		}
	}
}

// step carries out orders, and applies a batch of what is delivered, if there is anything: up to an event at a position, or
// whatever is there where that is 0. head is where the log ended before the deliveries began.
func (l *lane) step(ctx context.Context, items <-chan *item, tick <-chan time.Time, head, upTo eventlog.Position) error {
	if err := l.obey(ctx); err != nil {
		return err
	}
	if err := l.grant(ctx); err != nil {
		return err
	}
	if err := l.receive(ctx, items, tick); err != nil {
		return err
	}
	n := len(l.pending)
	if i := slices.IndexFunc(l.pending, func(i *item) bool { return i.Event != nil && i.Position >= upTo }); upTo > 0 && i >= 0 {
		n = i + 1
	}
	n, err := l.apply(ctx, l.pending[:n], head)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(l.pending[:n], func(i *item) bool { return i.CaughtUp }) && !l.caughtUp.Swap(true) {
		l.r.c.hurry() // it may have been the last that a build waits for
	}
	l.pending = l.pending[n:]
	if l.caughtUp.Load() && len(items) == 0 && len(l.pending) == 0 {
		l.behind.Store(0)
	}
	return nil
}

// receive waits for something to apply, and takes with it what else is there: batches grow by themselves under load. It
// comes back with nothing when it is time to look for orders, or somebody wants to join.
func (l *lane) receive(ctx context.Context, items <-chan *item, tick <-chan time.Time) error {
	take := func(i *item, open bool) error {
		switch {
		case !open:
			return errSlow
		case i.Interrupted != nil:
			return fmt.Errorf("%w: %w", errInterrupted, i.Interrupted)
		}
		l.pending = append(l.pending, i)
		return nil
	}
	if len(l.pending) == 0 {
		select {
		case i, open := <-items:
			if err := take(i, open); err != nil {
				return err
			}
		case <-tick:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		if l.caughtUp.Load() {
			select {
			case <-time.After(time.Until(l.begun.Add(tempo))):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	l.begun = time.Now()
	for len(l.pending) < maxBatch {
		select {
		case i, open := <-items:
			if err := take(i, open); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}

// obey carries out what the partitions' owner has to: it drops those that are not ours any more, gives up those that others
// should have, and rests.
func (l *lane) obey(ctx context.Context) error {
	o := l.r.orders(l)
	if gone := append(o.lost, o.given...); len(gone) > 0 {
		kept := slices.DeleteFunc(slices.Clone(l.parts), func(p part) bool { return slices.Contains(gone, p) })
		l.keep(kept)
		l.forgetParked()
	}
	if len(o.given) > 0 {
		// Should this fail, the lease runs out by itself.
		if err := release(ctx, l.r.c.pool, l.r.c.member, l.r.name, o.given.numbers()); err != nil {
			l.logger().Warn("partitions can't be given up", "err", err)
		}
		l.r.dropped(o.given)
	}
	if len(l.parts) == 0 {
		return errDone
	}
	if o.paused {
		return errPaused
	}
	return nil
}

// forgetParked forgets the parked keys of other lanes' partitions.
func (l *lane) forgetParked() {
	for key := range l.parked {
		if !l.has(partitionOf(key)) {
			delete(l.parked, key)
		}
	}
	l.showParked()
}
