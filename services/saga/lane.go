package saga

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
)

const (
	// laneWidth is how many items one service is given at a time, laneBatch how many are read at once. It is wide, so that
	// a few slow ones, such as payments, hold up no others.
	laneWidth = 64
	laneBatch = 2 * laneWidth
	// pollInterval is how often a lane looks at the list when nobody says that it changed. While the list can't be read
	// it looks less and less often, down to every maxPoll.
	pollInterval = 250 * time.Millisecond
	maxPoll      = 5 * time.Second
	// An item that failed waits for a random time up to a bound, which doubles from firstPause to maxPause.
	firstPause = 200 * time.Millisecond
	maxPause   = 30 * time.Second
	// settle is how long an item that was done may stay on the list before it is done again: time for its event to come
	// back. It doubles too, for an item that stays.
	settle = 2 * time.Second
)

// lane is the work for one service. Lanes are independent: a service that is down or slow holds up its own items only.
type lane struct {
	name  string
	steps []string
	wake  chan struct{}

	mu    sync.Mutex
	rests map[itemKey]rest
}

type itemKey struct{ order, step, product string }

func (t task) key() itemKey { return itemKey{t.OrderID, t.Step, t.ProductID} }

// rest keeps an item from being done again while it is under way, or was done a moment ago.
type rest struct {
	underWay bool
	until    time.Time
	done     int // times in a row that it was done and stayed on the list
}

func newLane(name string, steps []fulfillmentevent.Step) *lane {
	l := &lane{name: name, wake: make(chan struct{}, 1), rests: map[itemKey]rest{}}
	for _, s := range steps {
		l.steps = append(l.steps, stepName(s))
	}
	return l
}

func (l *lane) wakeUp() {
	select {
	case l.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// work does a lane's items until ctx ends, and waits for those under way.
func (e *executor) work(ctx context.Context, l *lane) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	slots := make(chan struct{}, laneWidth)
	poll := backoff.NewExponentialBackOff()
	poll.InitialInterval, poll.MaxInterval = pollInterval, maxPoll
	for ctx.Err() == nil {
		tasks, read, err := e.next(ctx, l)
		if err != nil && ctx.Err() == nil {
			pause := poll.NextBackOff()
			e.log.WarnContext(ctx, "the to-do list can't be read", "lane", l.name, "again_in", pause.Round(time.Millisecond).String(), "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			continue
		}
		poll.Reset()
		for _, t := range tasks {
			select {
			case <-ctx.Done():
				return nil
			case slots <- struct{}{}:
			}
			l.begin(t.key())
			workers.Go(func() {
				defer func() { <-slots }()
				defer l.ended(t.key())
				e.do(ctx, l, t, read)
			})
		}
		if len(tasks) == laneBatch {
			continue // there may be more
		}
		select {
		case <-ctx.Done():
		case <-l.wake:
		case <-time.After(pollInterval):
		}
	}
	return nil
}

// next returns what is to be done now, and when it was read: nothing while the list has not caught up.
func (e *executor) next(ctx context.Context, l *lane) ([]task, time.Time, error) {
	partitions := e.level()
	if len(partitions) == 0 {
		return nil, time.Time{}, nil // the consumer logs why
	}
	read := e.clock()
	most := laneBatch + l.resting() // so that those who rest hide no others
	listed, err := e.list.due(ctx, l.steps, partitions, read, most)
	if err != nil {
		return nil, read, err
	}
	tasks := l.awake(listed, len(listed) < most, read)
	return tasks[:min(len(tasks), laneBatch)], read, nil
}

// do makes one attempt at a task and says when the next may be.
func (e *executor) do(ctx context.Context, l *lane, t task, read time.Time) {
	started := e.clock()
	outcome, err := e.attempt(ctx, t, read)
	if ctx.Err() != nil {
		return // the item is still on the list
	}
	now := e.clock()
	e.metrics.attempted(t.Step, outcome, now.Sub(started))
	if err == nil {
		l.settled(t.key(), now)
		return
	}
	next := now.Add(pause(t.Attempts))
	e.log.DebugContext(ctx, "an item is tried again", "order", t.OrderID, "step", t.Step, "product", t.ProductID,
		"attempts", t.Attempts+1, "next", next, "err", err)
	if err := e.list.failed(ctx, t.key(), t.Attempts+1, next, cause(err)); err != nil && ctx.Err() == nil {
		e.log.WarnContext(ctx, "a failure can't be noted", "lane", l.name, "err", err)
	}
	l.failed(t.key(), next)
}

// pause is how long an item waits after it has failed a number of times before: exponential, with full jitter.
func pause(failed int64) time.Duration {
	bound := maxPause
	if failed < 16 {
		bound = min(maxPause, firstPause<<failed)
	}
	return rand.N(bound)
}

// begin marks an item as under way.
func (l *lane) begin(k itemKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rests[k] = rest{underWay: true, done: l.rests[k].done}
}

// ended marks an item as not under way any more.
func (l *lane) ended(k itemKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r, ok := l.rests[k]; ok {
		r.underWay = false
		l.rests[k] = r
	}
}

func (l *lane) settled(k itemKey, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	done := l.rests[k].done
	l.rests[k] = rest{until: now.Add(min(maxPause, settle<<min(done, 8))), done: done + 1}
}

func (l *lane) failed(k itemKey, next time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rests[k] = rest{until: next}
}

// resting is how many items are to be left alone at most.
func (l *lane) resting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.rests)
}

// awake leaves out the listed items that rest. Those that are not on the list any more are forgotten: all that are missing where
// the list is complete, and else those that have rested for long enough.
func (l *lane) awake(listed []task, complete bool, now time.Time) []task {
	l.mu.Lock()
	defer l.mu.Unlock()
	var awake []task
	there := make(map[itemKey]bool, len(listed))
	for _, t := range listed {
		there[t.key()] = true
		if r := l.rests[t.key()]; !r.underWay && !r.until.After(now) {
			awake = append(awake, t)
		}
	}
	for k, r := range l.rests {
		if !r.underWay && !there[k] && (complete || now.Sub(r.until) > maxPause) {
			delete(l.rests, k)
		}
	}
	return awake
}
