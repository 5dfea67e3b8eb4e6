package stock_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/purserhq/purser/internal/domain/stock"
	"github.com/purserhq/purser/internal/fault"
	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	fine    = typev1.ErrorReason_ERROR_REASON_UNSPECIFIED
	invalid = typev1.ErrorReason_ERROR_REASON_INVALID_FIELD
	limit   = typev1.ErrorReason_ERROR_REASON_STOCK_LIMIT
	differs = typev1.ErrorReason_ERROR_REASON_RESERVATION_DIFFERS
	ended   = typev1.ErrorReason_ERROR_REASON_RESERVATION_ENDED
	notHeld = typev1.ErrorReason_ERROR_REASON_RESERVATION_NOT_HELD
	left    = typev1.ErrorReason_ERROR_REASON_RESERVATION_COMMITTED
	expired = typev1.ErrorReason_ERROR_REASON_ATTEMPT_EXPIRED
	reason  = stockevent.ReleaseReason_RELEASE_REASON_ORDER_ENDED
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func received(n int64) proto.Message { return &stockevent.StockReceived{ProductId: "mug", Quantity: n} }

func reserved(order string, n int64) proto.Message {
	return &stockevent.StockReserved{ProductId: "mug", OrderId: order, Quantity: n}
}

func released(order string, n int64) proto.Message {
	return &stockevent.ReservationReleased{ProductId: "mug", OrderId: order, Quantity: n, Reason: reason}
}

func committed(order string, n int64) proto.Message {
	return &stockevent.ReservationCommitted{ProductId: "mug", OrderId: order, Quantity: n}
}

func tooFew(order string, requested, available int64) proto.Message {
	return &stockevent.StockReservationRejected{ProductId: "mug", OrderId: order, Requested: requested, Available: available}
}

type command func(*stock.State) ([]proto.Message, error)

func receive(n int64) command {
	return func(s *stock.State) ([]proto.Message, error) {
		return s.Receive(stock.Receive{Product: "mug", Quantity: n})
	}
}

func reserveUntil(order string, n int64, until time.Time) command {
	return func(s *stock.State) ([]proto.Message, error) {
		return s.Reserve(stock.Reserve{Product: "mug", Order: order, Quantity: n, ValidUntil: until, Now: now})
	}
}

func reserve(order string, n int64) command { return reserveUntil(order, n, time.Time{}) }

func release(order string) command {
	return func(s *stock.State) ([]proto.Message, error) {
		return s.Release(stock.Release{Product: "mug", Order: order, Reason: reason})
	}
}

func commit(order string) command {
	return func(s *stock.State) ([]proto.Message, error) {
		return s.Commit(stock.Commit{Product: "mug", Order: order})
	}
}

func TestDecide(t *testing.T) {
	type past = []proto.Message
	full := past{}
	for range 1_000_000 {
		full = append(full, received(1e9))
	}
	for _, c := range []struct {
		name   string
		given  past
		when   command
		then   proto.Message
		reason typev1.ErrorReason
	}{
		{"receive", nil, receive(5), received(5), fine},
		{"receive nothing", nil, receive(0), nil, invalid},
		{"receive too much at once", nil, receive(1e9 + 1), nil, invalid},
		{"receive too much in all", full, receive(1), nil, limit},

		{"reserve", past{received(5)}, reserve("7", 5), reserved("7", 5), fine},
		{"reserve nothing", past{received(5)}, reserve("7", 0), nil, invalid},
		{"reserve too much at once", past{received(99999)}, reserve("7", 10000), nil, invalid},
		{"reserve of what was never stocked", nil, reserve("7", 1), tooFew("7", 1, 0), fine},
		{"reserve more than there is", past{received(5)}, reserve("7", 6), tooFew("7", 6, 5), fine},
		{"reserve more than is left", past{received(5), reserved("6", 3)}, reserve("7", 3), tooFew("7", 3, 2), fine},
		{"reserve what was given back", past{received(5), reserved("6", 3), released("6", 3)}, reserve("7", 5), reserved("7", 5), fine},
		{"reserve after a rejection", past{tooFew("7", 1, 0), received(5)}, reserve("7", 1), reserved("7", 1), fine},
		{"reserve again", past{received(5), reserved("7", 5)}, reserve("7", 5), nil, fine},
		{"reserve again, another quantity", past{received(5), reserved("7", 3)}, reserve("7", 4), nil, differs},
		{"reserve after a release", past{received(5), reserved("7", 3), released("7", 3)}, reserve("7", 3), nil, ended},
		{"reserve after a release that came first", past{received(5), released("7", 0)}, reserve("7", 3), nil, ended},
		{"reserve after a commit", past{received(5), reserved("7", 3), committed("7", 3)}, reserve("7", 3), nil, ended},
		{"reserve more than was left by a commit", past{received(5), reserved("6", 3), committed("6", 3)}, reserve("7", 3), tooFew("7", 3, 2), fine},
		{"reserve in time", past{received(5)}, reserveUntil("7", 1, now), reserved("7", 1), fine},
		{"reserve too late", past{received(5)}, reserveUntil("7", 1, now.Add(-time.Nanosecond)), nil, expired},
		{"reserve too late and too much", past{received(5)}, reserveUntil("7", 6, now.Add(-1)), nil, expired},
		{"reserve too late what is held", past{received(5), reserved("7", 1)}, reserveUntil("7", 1, now.Add(-1)), nil, fine},
		{"reserve, valid for five minutes", past{received(5)}, reserveUntil("7", 1, now.Add(5*time.Minute)), reserved("7", 1), fine},
		{"reserve, valid for longer", past{received(5)}, reserveUntil("7", 1, now.Add(5*time.Minute+1)), nil, invalid},

		{"release", past{received(5), reserved("7", 3)}, release("7"), released("7", 3), fine},
		{"release again", past{received(5), reserved("7", 3), released("7", 3)}, release("7"), nil, fine},
		{"release nothing", past{received(5)}, release("7"), released("7", 0), fine},
		{"release after a rejection", past{tooFew("7", 1, 0)}, release("7"), released("7", 0), fine},
		{"release of another order", past{received(5), reserved("6", 3)}, release("7"), released("7", 0), fine},
		{"release after a commit", past{received(5), reserved("7", 3), committed("7", 3)}, release("7"), nil, left},

		{"commit", past{received(5), reserved("7", 3)}, commit("7"), committed("7", 3), fine},
		{"commit again", past{received(5), reserved("7", 3), committed("7", 3)}, commit("7"), nil, fine},
		{"commit after a release", past{received(5), reserved("7", 3), released("7", 3)}, commit("7"), nil, notHeld},
		{"commit nothing", past{received(5)}, commit("7"), nil, notHeld},
		{"commit after a rejection", past{tooFew("7", 1, 0)}, commit("7"), nil, notHeld},
		{"commit of another order", past{received(5), reserved("6", 3)}, commit("7"), nil, notHeld},
		{"commit of what was never stocked", nil, commit("7"), nil, notHeld},
	} {
		var s stock.State
		for _, m := range c.given {
			s.Evolve(m, now)
		}
		got, err := c.when(&s)
		if c.reason == fine && err != nil || c.reason != fine && !fault.Is(err, c.reason) {
			t.Errorf("%s: %v, want %v", c.name, err, c.reason)
		}
		if c.then == nil && len(got) != 0 || c.then != nil && (len(got) != 1 || !proto.Equal(got[0], c.then)) {
			t.Errorf("%s: %v, want %v", c.name, got, c.then)
		}
	}
}

func TestEvolve(t *testing.T) {
	var s stock.State
	if s.Exists {
		t.Error("exists without a past")
	}
	for _, m := range []proto.Message{received(5), reserved("6", 2), reserved("7", 1), tooFew("8", 9, 2), released("6", 2), released("9", 0)} {
		s.Evolve(m, now)
	}
	if !s.Exists || s.OnHand != 5 || s.Reserved != 1 || s.Available() != 4 || len(s.Held) != 1 || s.Held["7"] != 1 {
		t.Errorf("%+v", s)
	}
	// What leaves was reserved, so there is as much for others as before.
	s.Evolve(committed("7", 1), now)
	if s.OnHand != 4 || s.Reserved != 0 || s.Available() != 4 || len(s.Held) != 0 {
		t.Errorf("after a commit: %+v", s)
	}
}

// A mark outlives every attempt that may still be valid, and no more.
func TestMarksAreForgotten(t *testing.T) {
	for name, end := range map[string]func(order string) proto.Message{
		"release": func(order string) proto.Message { return released(order, 1) },
		"commit":  func(order string) proto.Message { return committed(order, 1) },
	} {
		var s stock.State
		s.Evolve(received(5), now)
		for i, after := range []time.Duration{0, 7 * time.Minute, 7*time.Minute + 1} {
			if _, err := reserve("0", 1)(&s); i > 0 && !fault.Is(err, ended) {
				t.Errorf("%s: within seven minutes: %v", name, err)
			}
			order := fmt.Sprint(i)
			s.Evolve(reserved(order, 1), now)
			s.Evolve(end(order), now.Add(after))
		}
		if got, err := reserve("0", 1)(&s); err != nil || len(got) != 1 {
			t.Errorf("%s: after more than that: %v, %v", name, got, err)
		}
		if len(s.Marks) != 2 {
			t.Errorf("%s: %d marks are kept", name, len(s.Marks))
		}
	}
}

// A commit that is not remembered gives nothing back, and takes nothing twice.
func TestACommitThatIsForgottenStaysOne(t *testing.T) {
	var s stock.State
	for _, m := range []proto.Message{received(5), reserved("7", 3), committed("7", 3)} {
		s.Evolve(m, now)
	}
	s.Evolve(released("8", 0), now.Add(time.Hour))
	if got, err := commit("7")(&s); !fault.Is(err, notHeld) || len(got) != 0 {
		t.Errorf("committed again: %v, %v", got, err)
	}
	got, err := release("7")(&s)
	if err != nil || len(got) != 1 || !proto.Equal(got[0], released("7", 0)) {
		t.Fatalf("released: %v, %v", got, err)
	}
	if s.Evolve(got[0], now.Add(time.Hour)); s.OnHand != 2 || s.Available() != 2 {
		t.Errorf("%+v", s)
	}
}

// A snapshot keeps all of a state, and a copy shares nothing with it.
func TestAStateSurvivesItsJSONAndItsCopies(t *testing.T) {
	past := []proto.Message{received(9), reserved("6", 2), reserved("7", 1), released("6", 2), released("8", 0), committed("7", 1)}
	fold := func(s *stock.State, events []proto.Message) {
		for i, m := range events {
			s.Evolve(m, now.Add(time.Duration(i)*time.Minute))
		}
	}
	for cut := range len(past) + 1 {
		var s, restored stock.State
		fold(&s, past[:cut])
		data, err := json.Marshal(&s)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &restored); err != nil {
			t.Fatal(err)
		}
		copied := s.Clone()
		fold(&s, past[cut:])
		for name, other := range map[string]*stock.State{"restored": &restored, "copied": copied} {
			if got, _ := json.Marshal(other); !bytes.Equal(got, data) {
				t.Errorf("%s after %d events: %s, was %s", name, cut, got, data)
			}
			fold(other, past[cut:])
			if _, err := reserve("8", 1)(other); !fault.Is(err, ended) {
				t.Errorf("%s after %d events: a mark is lost: %v", name, cut, err)
			}
			if _, err := release("7")(other); !fault.Is(err, left) {
				t.Errorf("%s after %d events: a commit is forgotten: %v", name, cut, err)
			}
			a, _ := json.Marshal(other)
			if b, _ := json.Marshal(&s); !bytes.Equal(a, b) {
				t.Errorf("%s after %d events ends as %s, want %s", name, cut, a, b)
			}
		}
	}
}

// Whatever was decided, a copy and what is read back from JSON decide the same, what is reserved is what is held and is on
// hand, and each order has one mark at most, none of them older beside the last than its window.
func TestCopiesDecideTheSame(t *testing.T) {
	orders := []string{"1", "2", "3"}
	rapid.Check(t, func(t *rapid.T) {
		var s stock.State
		at := now
		for range rapid.IntRange(1, 30).Draw(t, "commands") {
			at = at.Add(time.Duration(rapid.IntRange(0, 10).Draw(t, "minutes")) * time.Minute)
			order := rapid.SampledFrom(orders).Draw(t, "order")
			do := rapid.SampledFrom([]command{receive(3), reserve(order, 2), release(order), commit(order)}).Draw(t, "command")
			messages, _ := do(&s) // refusals leave it as it is
			for _, m := range messages {
				s.Evolve(m, at)
			}
			var held int64
			for _, n := range s.Held {
				held += n
			}
			if s.Reserved != held || s.Available() < 0 {
				t.Fatalf("%d reserved, %d held, %d on hand", s.Reserved, held, s.OnHand)
			}
			marked := map[string]bool{}
			for _, m := range s.Marks {
				if marked[m.Order] || s.Marks[len(s.Marks)-1].At.Sub(m.At) > 7*time.Minute {
					t.Fatalf("marks %+v", s.Marks)
				}
				marked[m.Order] = true
			}
			data, err := json.Marshal(&s)
			if err != nil {
				t.Fatal(err)
			}
			var restored stock.State
			if err := json.Unmarshal(data, &restored); err != nil {
				t.Fatal(err)
			}
			for _, order := range orders {
				for name, do := range map[string]command{"reserve": reserve(order, 1), "release": release(order), "commit": commit(order)} {
					want, refused := do(&s)
					for _, other := range []*stock.State{&restored, s.Clone()} {
						got, err := do(other)
						if len(got) != len(want) || len(got) > 0 && !proto.Equal(got[0], want[0]) || fmt.Sprint(err) != fmt.Sprint(refused) {
							t.Fatalf("%s for order %s: %v, %v, want %v, %v", name, order, got, err, want, refused)
						}
					}
				}
			}
		}
	})
}
