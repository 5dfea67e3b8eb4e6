package consumer_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventlog/memorylog"
)

// numbers is a schema whose events are numbers.
type numbers struct{}

func (numbers) Encode(m proto.Message) (eventlog.Encoded, error) {
	n := m.(*wrapperspb.Int64Value).GetValue()
	return eventlog.Encoded{Type: "Number", Version: 1, Data: strconv.AppendInt(nil, n, 10)}, nil
}

func (numbers) Knows(eventType string) bool { return eventType == "Number" }

func (numbers) Decode(_ string, version int, _ string, data []byte) ([]proto.Message, error) {
	if version > 1 {
		return nil, eventlog.ErrNewerVersion
	}
	n, err := strconv.ParseInt(string(data), 10, 64)
	return []proto.Message{wrapperspb.Int64(n)}, err
}

// numberLog is an event log of numbers in memory.
type numberLog struct {
	*memorylog.Log
	t        *testing.T
	identity string // "": its own
	deleted  string // a stream that was deleted for good

	mu    sync.Mutex
	asked func() // when the identity is asked for

	subscriptions atomic.Int64 // at present
	subscribed    atomic.Int64 // ever
	read          atomic.Int64 // streams, ever
}

func newNumberLog(t *testing.T) *numberLog {
	return &numberLog{Log: memorylog.New(numbers{}), t: t}
}

func (l *numberLog) Subscribe(ctx context.Context, categories []string, after eventlog.Position, deliver func(context.Context, eventlog.Delivery) error) error {
	l.subscriptions.Add(1)
	l.subscribed.Add(1)
	defer l.subscriptions.Add(-1)
	return l.Log.Subscribe(ctx, categories, after, deliver)
}

func (l *numberLog) Read(ctx context.Context, stream string, from eventlog.Revision, max int) ([]eventlog.Recorded, error) {
	l.read.Add(1)
	if stream == l.deleted {
		return nil, eventlog.ErrDeleted
	}
	return l.Log.Read(ctx, stream, from, max)
}

func (l *numberLog) onIdentity(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = f
}

func (l *numberLog) Identity(ctx context.Context) (string, error) {
	l.mu.Lock()
	asked := l.asked
	l.mu.Unlock()
	if asked != nil {
		asked()
	}
	if l.identity != "" {
		return l.identity, nil
	}
	return l.Log.Identity(ctx)
}

func (l *numberLog) append(stream string, n int64) eventlog.Position {
	l.t.Helper()
	a, err := l.Append(context.Background(), stream, l.last(stream), []eventlog.NewEvent{{
		ID: uuid.New(), Message: wrapperspb.Int64(n), Meta: eventlog.Metadata{OccurredAt: time.Unix(n, 1)},
	}})
	if err != nil {
		l.t.Error(err)
	}
	return a.Position
}

// appendNewer appends an event that only a newer build can read.
func (l *numberLog) appendNewer(stream string) {
	l.t.Helper()
	e := eventlog.Recorded{ID: uuid.New(), Type: "Number", Metadata: []byte(`{"schemaVersion":2}`)}
	if _, err := l.AppendRecorded(context.Background(), stream, l.last(stream), []eventlog.Recorded{e}); err != nil {
		l.t.Error(err)
	}
}

func (l *numberLog) last(stream string) eventlog.Revision {
	last := eventlog.NoStream
	for _, e := range l.Events() {
		if e.Stream == stream {
			last = e.Revision
		}
	}
	return last
}

func (l *numberLog) head() eventlog.Position {
	if events := l.Events(); len(events) > 0 {
		return events[len(events)-1].Position
	}
	return 0
}

func (l *numberLog) number(r eventlog.Recorded) int64 {
	l.t.Helper()
	e, err := l.Decode(r)
	if err != nil {
		l.t.Fatal(err)
	}
	return e.Messages[0].(*wrapperspb.Int64Value).GetValue()
}
