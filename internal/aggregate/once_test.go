package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventlog/memorylog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/secret"
	inventoryevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// What follows sends drawn commands to replicas that crash, over a log that fails, and holds every answer against what the
// log was between call and answer. A history runs in a bubble with a clock of its own, so that the drawn delays of I/O
// decide who comes first, and a failure can mostly be run again.

// history is all that is drawn.
type history struct {
	long   bool // with snapshots
	orders []order
	delays []time.Duration // of I/O, in turn
	faults []ioFault       // of appends, in turn; none after them
}

// order is a command with its copies.
type order struct {
	request int // several may have the same
	kind    orderKind
	n       int64
	etag    int64 // the revision to be expected; -1 for any
	replica int   // that it is sent to first
	at      time.Duration
	copies  int
}

type orderKind int

const (
	receiveAll  orderKind = iota // n at once
	receiveHalf                  // n twice, as two events
	topUp                        // to n, which may be nothing to do
)

type ioFault int

const (
	noFault ioFault = iota
	notStored
	answerLost
	crashed // between append and reply: whatever the process does next fails
	overtaken
	ioFaults
)

func drawHistory(t *rapid.T) history {
	ms := rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.IntRange(0, 6).Draw(t, "ms")) * time.Millisecond
	})
	return history{
		long:   rapid.Bool().Draw(t, "long"),
		delays: rapid.SliceOfN(ms, 1, 20).Draw(t, "delays"),
		faults: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) ioFault { return ioFault(rapid.IntRange(0, int(ioFaults)-1).Draw(t, "fault")) }), 0, 12).Draw(t, "faults"),
		orders: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) order {
			return order{
				request: rapid.IntRange(0, 9).Draw(t, "request"),
				kind:    orderKind(rapid.IntRange(0, 2).Draw(t, "kind")),
				n:       rapid.SampledFrom([]int64{1, 5, 20, 45}).Draw(t, "n"),
				etag:    rapid.SampledFrom([]int64{-1, -1, -1, 0, 1, 2, 4}).Draw(t, "etag"),
				replica: rapid.IntRange(0, 1).Draw(t, "replica"),
				at:      ms.Draw(t, "at"),
				copies:  rapid.IntRange(1, 3).Draw(t, "copies"),
			}
		}), 1, 14).Draw(t, "orders"),
	}
}

// tally is counter, with fields that a snapshot keeps.
type tally struct{ Total int64 }

func (s *tally) Evolve(m proto.Message, _ time.Time) {
	s.Total += m.(*inventoryevent.StockReceived).GetQuantity()
}

func (s *tally) Clone() *tally {
	c := *s
	return &c
}

// asks is the same for all copies of a command, and differs from another under the same request id.
func (o order) asks() int64 { return int64(o.kind)*1000 + o.n }

func (o order) decide(s *tally) ([]proto.Message, error) {
	quantities := []int64{o.n}
	switch o.kind {
	case receiveHalf:
		quantities = []int64{o.n, o.n}
	case topUp:
		if s.Total >= o.n {
			return nil, nil
		}
		quantities = []int64{o.n - s.Total}
	}
	var messages []proto.Message
	total := s.Total
	for _, q := range quantities {
		total += q
		messages = append(messages, &inventoryevent.StockReceived{ProductId: "p", Quantity: q})
	}
	if total > limit {
		return nil, fault.Refused(typev1.ErrorReason_ERROR_REASON_STOCK_LIMIT, "over %d", limit)
	}
	return messages, nil
}

// world is what outlives a process.
type world struct {
	history
	*memorylog.Log
	secret *secret.Secret

	mu       sync.Mutex
	io       int
	appends  int
	replicas [2]*process
}

// process is one run of a service: its memory, and its connection to the log.
type process struct {
	*world
	handler *aggregate.Handler[tally]
	dead    bool
}

func (w *world) start() *process {
	p := &process{world: w}
	p.handler = aggregate.New[tally](p, "stock", w.secret, time.Now)
	if w.long {
		p.handler = aggregate.NewLong[tally](p, "stock", w.secret, time.Now, aggregate.Long{
			SnapshotEvery: 2, Window: time.Hour, Requests: 1000, Keyed: func(proto.Message) bool { return false }, Log: slog.New(slog.DiscardHandler),
		})
	}
	return p
}

// replica is the process that takes a replica's calls now.
func (w *world) replica(i int) *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.replicas[i] == nil || w.replicas[i].dead {
		w.replicas[i] = w.start()
	}
	return w.replicas[i]
}

// wait takes a drawn time, and fails for a process that is dead by then.
func (p *process) wait() error {
	p.mu.Lock()
	d := p.delays[p.io%len(p.delays)] + time.Duration(p.io) // no two at the same moment
	p.io++
	p.mu.Unlock()
	time.Sleep(d)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return eventlog.ErrUnavailable
	}
	return nil
}

func (p *process) nextFault() ioFault {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.appends++; p.appends > len(p.faults) {
		return noFault
	}
	return p.faults[p.appends-1]
}

func (p *process) Append(ctx context.Context, stream string, expected eventlog.Revision, events []eventlog.NewEvent) (eventlog.Appended, error) {
	return p.append(func() (eventlog.Appended, error) { return p.Log.Append(ctx, stream, expected, events) })
}

func (p *process) AppendRecorded(ctx context.Context, stream string, expected eventlog.Revision, events []eventlog.Recorded) (eventlog.Appended, error) {
	return p.append(func() (eventlog.Appended, error) { return p.Log.AppendRecorded(ctx, stream, expected, events) })
}

func (p *process) append(store func() (eventlog.Appended, error)) (eventlog.Appended, error) {
	if err := p.wait(); err != nil {
		return eventlog.Appended{}, err
	}
	f := p.nextFault()
	switch f {
	case notStored:
		return eventlog.Appended{}, eventlog.ErrUnavailable
	case overtaken:
		p.overtake()
	}
	a, err := store()
	if f == crashed {
		p.mu.Lock()
		p.dead = true
		p.mu.Unlock()
	}
	if werr := p.wait(); werr != nil {
		return eventlog.Appended{}, werr
	}
	if f == answerLost {
		return eventlog.Appended{}, eventlog.ErrUnavailable
	}
	return a, err
}

// overtake appends an event that no command asked for, right before somebody else's append.
func (p *process) overtake() {
	at := eventlog.Revision(len(p.stream()) - 1)
	if _, err := p.Log.Append(context.Background(), "stock-p", at, []eventlog.NewEvent{{
		ID: uuid.New(), Message: &inventoryevent.StockReceived{ProductId: "p"}, Meta: eventlog.Metadata{OccurredAt: time.Now()},
	}}); err != nil {
		panic(err) // nothing else runs in between
	}
}

func (p *process) Read(ctx context.Context, stream string, from eventlog.Revision, max int) ([]eventlog.Recorded, error) {
	if err := p.wait(); err != nil {
		return nil, err
	}
	return p.Log.Read(ctx, stream, from, max)
}

func (p *process) Latest(ctx context.Context, stream string) (eventlog.Recorded, bool, error) {
	if err := p.wait(); err != nil {
		return eventlog.Recorded{}, false, err
	}
	return p.Log.Latest(ctx, stream)
}

func (w *world) stream() []eventlog.Recorded {
	events, err := w.Log.Read(context.Background(), "stock-p", 0, 0)
	if err != nil {
		panic(err) // it is never down
	}
	return events
}

// reply is a definite answer, and the revisions that the stream had at the call and at the answer.
type reply struct {
	order
	from, to eventlog.Revision
	done     aggregate.Done
	err      error
}

// send sends a command until it is answered for good.
func (w *world) send(o order) reply {
	cmd := command(fmt.Sprint("r", o.request), o.asks())
	if o.etag >= 0 {
		cmd.Etag = aggregate.Etag(eventlog.Revision(o.etag))
	}
	for attempt := 0; ; attempt++ {
		r := reply{order: o, from: eventlog.Revision(len(w.stream()) - 1)}
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		r.done, r.err = w.replica((o.replica+attempt)%2).handler.Handle(ctx, "p", cmd, o.decide)
		cancel()
		r.to = eventlog.Revision(len(w.stream()) - 1)
		unsettled := errors.Is(r.err, eventlog.ErrUnavailable) || errors.Is(r.err, context.DeadlineExceeded) || fault.Is(r.err, typev1.ErrorReason_ERROR_REASON_CONTENTION)
		if !unsettled || attempt == 100 {
			return r
		}
		time.Sleep(time.Duration(1+attempt%7) * time.Millisecond)
	}
}

func (w *world) run() (replies []reply) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, o := range w.orders {
		for c := range o.copies {
			wg.Go(func() {
				time.Sleep(time.Duration(c+1) * o.at)
				copied := o
				copied.replica = (o.replica + c) % 2
				for range 2 { // sent again when it was answered, too
					r := w.send(copied)
					mu.Lock()
					replies = append(replies, r)
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	time.Sleep(time.Minute) // whoever still works then, blocks for ever: the bubble tells
	return replies
}

func TestOnceUnderFaults(t *testing.T) {
	s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{history: drawHistory(rt), Log: memorylog.New(eventschema.New()), secret: s}
		var replies []reply
		synctest.Test(t, func(*testing.T) { replies = w.run() })
		m, err := w.serial()
		if err != nil {
			rt.Fatal(err)
		}
		for _, r := range replies {
			if err := m.explains(r); err != nil {
				rt.Errorf("%+v: %v", r, err)
			}
		}
	})
}
