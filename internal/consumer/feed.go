package consumer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/purserhq/purser/internal/eventlog"
)

const (
	// queueLength bounds the events that wait for a lane.
	queueLength = 4096
	// deafTime is how long a process may not hear of the event store before it leaves its partitions to others, who may.
	deafTime = 2 * leaseTime
)

// maxKey bounds a key, in bytes. Those of our services have at most 64, and an index of Postgres takes no more than some 2,700.
const maxKey = 512

// keyOf is the category of a stream and the key of its events. Where Postgres could not keep the key there is none: it could not
// even be parked.
func keyOf(stream string) (category, key string, ok bool) {
	category, key, ok = eventlog.SplitStream(stream)
	return category, key, ok && len(key) <= maxKey && utf8.ValidString(key) && !strings.Contains(key, "\x00")
}

// item is what a subscription delivered, for all lanes of a process: its event is decoded once, when the first one wants it.
type item struct {
	eventlog.Delivery
	category, key string
	partition     int // -1: it is no event, or one without a key

	once    sync.Once
	decoded decoded
	known   bool
	err     error
}

func newItem(d eventlog.Delivery) *item {
	i := &item{Delivery: d, partition: -1}
	if d.Event != nil {
		var ok bool
		if i.category, i.key, ok = keyOf(d.Event.Stream); ok {
			i.partition = partitionOf(i.key)
		}
	}
	return i
}

// decode reads the event, as [decode] does.
func (i *item) decode(log Decoder) (decoded, bool, error) {
	i.once.Do(func() { i.decoded, i.known, i.err = decode(log, *i.Event) })
	return i.decoded, i.known, i.err
}

// decode reads an event. One of a type that this build does not know has no messages for its folds, and is only noted by
// them; one of a newer version makes it wait for a newer build; any other that can't be read is poison, and so is carried on as such.
func decode(log Decoder, r eventlog.Recorded) (d decoded, known bool, err error) {
	category, key, ok := keyOf(r.Stream)
	if !ok {
		return decoded{}, false, nil
	}
	var e eventlog.Event
	var failed error
	if err := guarded(func() { e, failed = log.Decode(r) }); err != nil {
		failed = err
	}
	bare := decoded{Event: eventlog.Event{Recorded: r}, category: category, key: key}
	switch err := failed; {
	case errors.Is(err, eventlog.ErrUnknownType):
		return bare, false, nil
	case errors.Is(err, eventlog.ErrNewerVersion):
		return decoded{}, false, err
	case err != nil:
		bare.err = err
		return bare, true, nil
	}
	return decoded{Event: e, category: category, key: key}, true, nil
}

// feed is the one subscription of a process, fanned out to the lanes that follow the log. A lane that can't keep up is cut
// off: its queue is closed, and what it has missed it reads by a subscription of its own.
type feed struct {
	log        Log
	categories []string
	begun      chan struct{} // closed once it is known where it begins

	mu     sync.Mutex
	queues map[*queue]bool
	// interrupted is since when nothing is heard of the subscription; zero while it is.
	interrupted time.Time
	// last is the position of the last event that was delivered, 0 before the first.
	last eventlog.Position
}

// queue is what is delivered to one lane.
type queue struct{ items chan *item }

func newFeed(log Log, categories []string) *feed {
	return &feed{log: log, categories: categories, begun: make(chan struct{}), queues: map[*queue]bool{}, interrupted: time.Now()}
}

// run subscribes from the end of the log on until ctx ends.
func (f *feed) run(ctx context.Context) error {
	head, err := f.log.Head(ctx) // waits for a store that is away
	if err != nil {
		return fmt.Errorf("find the end of the log: %w", err)
	}
	f.begin()
	close(f.begun)
	return f.log.Subscribe(ctx, f.categories, head, f.deliver)
}

func (f *feed) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.interrupted = time.Time{}
}

// isDeaf tells whether the event store was not heard of for too long.
func (f *feed) isDeaf() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.interrupted.IsZero() && time.Since(f.interrupted) > deafTime
}

func (f *feed) deliver(_ context.Context, d eventlog.Delivery) error {
	i := newItem(d)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case d.Interrupted == nil:
		f.interrupted = time.Time{}
	case f.interrupted.IsZero():
		f.interrupted = time.Now()
	}
	if d.Event != nil {
		f.last = d.Position
	}
	for q := range f.queues {
		select {
		case q.items <- i:
		default:
			f.cut(q)
		}
	}
	return nil
}

func (f *feed) cut(q *queue) {
	if f.queues[q] {
		delete(f.queues, q)
		close(q.items)
	}
}

// join returns a queue of all that is delivered after an event, whose position it returns. It fails while the feed is
// interrupted.
func (f *feed) join() (q *queue, after eventlog.Position, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.interrupted.IsZero() {
		return nil, 0, false
	}
	q = &queue{make(chan *item, queueLength)}
	f.queues[q] = true
	return q, f.last, true
}

func (f *feed) leave(q *queue) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut(q)
}
