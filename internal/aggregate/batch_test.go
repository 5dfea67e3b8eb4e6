package aggregate_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventlog/memorylog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/fault"
	inventoryevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// gatedLog lets appends pass one by one, each to what the test wants to become of it.
type gatedLog struct {
	*memorylog.Log
	pass      chan pass
	appends   []int  // the events of each attempt
	beforeAny func() // called before every read
}

// pass is what becomes of an append.
type pass struct {
	instead error // nothing is stored
	after   error // it is stored, but this is answered
}

func (l *gatedLog) Append(ctx context.Context, stream string, expected eventlog.Revision, events []eventlog.NewEvent) (eventlog.Appended, error) {
	if len(events) == 0 { // no more than a look
		return l.Log.Append(ctx, stream, expected, events)
	}
	l.appends = append(l.appends, len(events))
	p := <-l.pass
	if p.instead != nil {
		return eventlog.Appended{}, p.instead
	}
	a, err := l.Log.Append(ctx, stream, expected, events)
	if p.after != nil {
		return eventlog.Appended{}, p.after
	}
	return a, err
}

func (l *gatedLog) Read(ctx context.Context, stream string, from eventlog.Revision, max int) ([]eventlog.Recorded, error) {
	if l.beforeAny != nil {
		l.beforeAny()
	}
	return l.Log.Read(ctx, stream, from, max)
}

// hot is an entity of which an append is in flight, so that commands queue up behind it.
type hot struct {
	t       *testing.T
	log     *gatedLog
	handler *aggregate.Handler[counter]
	first   *call
}

// call is a command that was sent; done and err are to be read when it was answered.
type call struct {
	id       string
	done     aggregate.Done
	err      error
	answered bool
}

// whileAppending runs a test of a hot entity, which has received 10 by a first command that is about to be stored. It runs
// in a bubble of its own, in which everybody waits for the test.
func whileAppending(t *testing.T, test func(*testing.T, *hot)) {
	synctest.Test(t, func(t *testing.T) {
		log := &gatedLog{Log: memorylog.New(eventschema.New()), pass: make(chan pass)}
		h := &hot{t: t, log: log, handler: newHandler(t, log)}
		h.first = h.receive(10)
		test(t, h)
	})
}

// send queues a command behind those before it.
func (h *hot) send(ctx context.Context, id string, n int64, etag string, decide aggregate.Decide[counter]) *call {
	cmd := command(id, n)
	cmd.Etag = etag
	c := &call{id: id}
	go func() {
		c.done, c.err = h.handler.Handle(ctx, "p", cmd, decide)
		c.answered = true
	}()
	synctest.Wait()
	return c
}

func (h *hot) receive(n int64) *call {
	return h.send(h.t.Context(), uuid.NewString(), n, "", receive(n))
}

// passes lets the next append pass, and waits until everything has come to rest.
func (h *hot) passes(p pass) {
	h.t.Helper()
	synctest.Wait()
	select {
	case h.log.pass <- p:
	default:
		h.t.Fatal("nobody appends")
	}
	synctest.Wait()
}

// appended checks how many events were in each append.
func (h *hot) appended(want ...int) {
	h.t.Helper()
	if len(h.log.appends) != len(want) {
		h.t.Fatalf("appends of %v events, want %v", h.log.appends, want)
	}
	for i, n := range h.log.appends {
		if n != want[i] {
			h.t.Fatalf("appends of %v events, want %v", h.log.appends, want)
		}
	}
}

// adds checks that the log adds up to something, and that a state kept in memory does so too.
func (h *hot) adds(total int64) {
	h.t.Helper()
	if s, _, err := h.handler.Load(h.t.Context(), "p"); err != nil || s.total != total {
		h.t.Errorf("the log adds up to %d, %v, want %d", s.total, err, total)
	}
	var kept int64
	look := h.send(h.t.Context(), uuid.NewString(), 1, "", func(c *counter) ([]proto.Message, error) {
		kept = c.total
		return nil, nil
	})
	if look.err != nil || !look.answered || kept != total {
		h.t.Errorf("decided on %d, %v, want %d", kept, look.err, total)
	}
}

// accepted checks an answer.
func (c *call) accepted(t *testing.T, etag string, n int64) {
	t.Helper()
	switch {
	case !c.answered || c.err != nil:
		t.Errorf("answered: %v, %v", c.answered, c.err)
	case c.done.Etag() != etag || len(c.done.Messages) != 1 || c.done.Messages[0].(*inventoryevent.StockReceived).GetQuantity() != n:
		t.Errorf("answered %+v, want %d at %s", c.done, n, etag)
	}
}

func (c *call) refused(t *testing.T, want typev1.ErrorReason) {
	t.Helper()
	if !c.answered || !fault.Is(c.err, want) {
		t.Errorf("answered: %v, %v, want %v", c.answered, c.err, want)
	}
}

func (c *call) failed(t *testing.T, want error) {
	t.Helper()
	if !c.answered || !errors.Is(c.err, want) {
		t.Errorf("answered: %v, %v, want %v", c.answered, c.err, want)
	}
}

func TestCommandsThatArriveDuringAnAppendAreAppendedTogether(t *testing.T) {
	whileAppending(t, func(t *testing.T, h *hot) {
		ctx := t.Context()
		second := h.receive(20)
		tooMuch := h.receive(71) // beside 10 and 20
		stale := h.send(ctx, uuid.NewString(), 5, `"0"`, receive(5))
		matching := h.send(ctx, uuid.NewString(), 5, `"1"`, receive(5))
		again := h.send(ctx, second.id, 20, "", receive(20))
		reused := h.send(ctx, second.id, 21, "", receive(21))
		nothing := h.send(ctx, uuid.NewString(), 1, "", func(c *counter) ([]proto.Message, error) {
			if c.total != 35 {
				t.Errorf("decided on %d, want what the commands before it leave", c.total)
			}
			return nil, nil
		})
		last := h.receive(65)
		h.passes(pass{})
		h.first.accepted(t, `"0"`, 10)
		if second.answered || tooMuch.answered || nothing.answered {
			t.Error("answered before what it was decided on was stored")
		}
		h.passes(pass{})
		h.appended(1, 3)
		second.accepted(t, `"1"`, 20)
		tooMuch.refused(t, typev1.ErrorReason_ERROR_REASON_STOCK_LIMIT)
		stale.refused(t, typev1.ErrorReason_ERROR_REASON_ETAG_MISMATCH)
		if stale.err == nil || !strings.Contains(stale.err.Error(), `"1"`) {
			t.Errorf("told %v, want the etag that the command before it left", stale.err)
		}
		matching.accepted(t, `"2"`, 5)
		again.accepted(t, `"1"`, 20)
		if !again.done.Repeat || second.done.Repeat {
			t.Error("the second copy is the repeat")
		}
		reused.refused(t, typev1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED)
		if nothing.err != nil || len(nothing.done.Messages) != 0 || nothing.done.Etag() != `"2"` {
			t.Errorf("nothing to do: %+v, %v", nothing.done, nothing.err)
		}
		last.accepted(t, `"3"`, 65)
		h.adds(100)
	})
}

func TestNothingIsLeftOfABatchThatWasNotStored(t *testing.T) {
	whileAppending(t, func(t *testing.T, h *hot) {
		calls := []*call{h.receive(50), h.receive(40), h.receive(1)} // the last is over the limit, if the others are stored
		h.passes(pass{})
		h.passes(pass{instead: eventlog.ErrUnavailable})
		for _, c := range calls {
			c.failed(t, eventlog.ErrUnavailable)
		}
		h.adds(10)
		one, two, tooMuch, three := h.receive(10), h.receive(50), h.receive(31), h.receive(30)
		h.passes(pass{})
		h.passes(pass{})
		one.accepted(t, `"1"`, 10)
		two.accepted(t, `"2"`, 50)
		tooMuch.refused(t, typev1.ErrorReason_ERROR_REASON_STOCK_LIMIT)
		three.accepted(t, `"3"`, 30)
		h.adds(100)
	})
}

func TestABatchWhoseAnswerWasLostIsFoundAgain(t *testing.T) {
	whileAppending(t, func(t *testing.T, h *hot) {
		calls := []*call{h.receive(20), h.receive(30)}
		h.passes(pass{})
		h.passes(pass{after: eventlog.ErrUnavailable})
		for _, c := range calls {
			c.failed(t, eventlog.ErrUnavailable)
		}
		// What is in memory is behind now, as the next append finds.
		other := h.receive(5)
		again := h.send(t.Context(), calls[1].id, 30, "", receive(30))
		h.passes(pass{})        // a conflict
		time.Sleep(time.Second) // until the tail was read
		h.passes(pass{})
		other.accepted(t, `"3"`, 5)
		again.accepted(t, `"2"`, 30)
		h.adds(65)
	})
}

func TestABatchThatIsTooLargeIsSplit(t *testing.T) {
	whileAppending(t, func(t *testing.T, h *hot) {
		one, large, two := h.receive(20), h.receive(30), h.receive(40)
		again := h.send(t.Context(), one.id, 20, "", receive(20))
		h.passes(pass{})
		for _, p := range []pass{{instead: eventlog.ErrTooLarge}, {}, {instead: eventlog.ErrTooLarge}, {}} {
			h.passes(p)
		}
		h.appended(1, 3, 1, 1, 1)
		one.accepted(t, `"1"`, 20)
		large.failed(t, eventlog.ErrTooLarge)
		two.accepted(t, `"2"`, 40)
		again.accepted(t, `"1"`, 20)
		h.adds(70)
	})
}

func TestAPanicIsAnsweredToItsOwnCommandOnly(t *testing.T) {
	whileAppending(t, func(t *testing.T, h *hot) {
		one := h.receive(20)
		broken := h.send(t.Context(), uuid.NewString(), 1, "", func(*counter) ([]proto.Message, error) { panic("a bug") })
		tooMuch, two := h.receive(71), h.receive(30)
		h.passes(pass{})
		h.passes(pass{})
		h.passes(pass{})
		one.accepted(t, `"1"`, 20)
		if !broken.answered || broken.err == nil || !strings.Contains(broken.err.Error(), "a bug") {
			t.Errorf("answered: %v, %v", broken.answered, broken.err)
		}
		tooMuch.refused(t, typev1.ErrorReason_ERROR_REASON_STOCK_LIMIT)
		two.accepted(t, `"2"`, 30)
		h.adds(60)
	})
}

// Work that has to be begun anew must not decide again what has been answered: the answer would not be true any more.
func TestWhatWasAnsweredIsNotDecidedAgain(t *testing.T) {
	whileAppending(t, func(t *testing.T, h *hot) {
		decided := 0
		refused := h.send(t.Context(), uuid.NewString(), 1, "", func(*counter) ([]proto.Message, error) {
			if decided++; decided > 1 {
				return []proto.Message{&inventoryevent.StockReceived{ProductId: "p", Quantity: 1}}, nil
			}
			return nil, fault.Refused(typev1.ErrorReason_ERROR_REASON_STOCK_LIMIT, "not now")
		})
		again := h.send(t.Context(), h.first.id, 10, "", receive(10))
		reads := 0
		h.log.beforeAny = func() {
			if reads++; reads == 1 { // for the repeat, after the refusal was answered
				panic("a bug")
			}
		}
		h.passes(pass{})
		refused.refused(t, typev1.ErrorReason_ERROR_REASON_STOCK_LIMIT)
		again.accepted(t, `"0"`, 10)
		if decided != 1 || reads < 2 {
			t.Errorf("decided %d times, %d reads", decided, reads)
		}
		h.adds(10)
	})
}

func TestCallersThatGiveUpDisturbNobody(t *testing.T) {
	whileAppending(t, func(t *testing.T, h *hot) {
		early, cancelEarly := context.WithCancel(t.Context())
		late, cancelLate := context.WithTimeout(t.Context(), time.Minute)
		defer cancelLate()
		gone, leaving, staying := h.send(early, uuid.NewString(), 20, "", receive(20)), h.send(late, uuid.NewString(), 30, "", receive(30)), h.receive(40)
		cancelEarly()
		synctest.Wait()
		gone.failed(t, context.Canceled) // before it was taken up: it has no effect
		h.passes(pass{})
		cancelLate()
		synctest.Wait()
		leaving.failed(t, context.Canceled) // while its event is being stored: it has
		if staying.answered {
			t.Error("answered before it was stored")
		}
		h.passes(pass{})
		staying.accepted(t, `"2"`, 40)
		h.appended(1, 2)
		h.adds(80)
		again := h.send(t.Context(), leaving.id, 30, "", receive(30))
		again.accepted(t, `"1"`, 30)
	})
}

func TestNoMoreThanABatchIsSettledTogether(t *testing.T) {
	whileAppending(t, func(t *testing.T, h *hot) {
		var calls []*call
		for range 300 {
			calls = append(calls, h.send(t.Context(), uuid.NewString(), 0, "", receive(0)))
		}
		for range 3 {
			h.passes(pass{})
		}
		h.appended(1, 256, 44)
		for i, c := range calls {
			c.accepted(t, aggregate.Etag(eventlog.Revision(i+1)), 0)
		}
	})
}
