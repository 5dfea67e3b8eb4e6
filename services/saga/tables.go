package saga

import (
	"slices"
	"strings"
	"time"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/domain/fulfillment"
	"github.com/purserhq/purser/internal/eventschema"
	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// orderRow is the saga's state of one order, with what is worth asking for as columns of its own.
type orderRow struct {
	OrderID        string            `db:"order_id,key"`
	State          fulfillment.State `db:"state"`
	Goal           string            `db:"goal"` // "": not seen to be placed yet
	NeedsAttention bool              `db:"needs_attention"`
	Attention      string            `db:"attention"` // why, or ""
	Priority       int64             `db:"priority"`
	Intent         int64             `db:"intent"` // of the payment, the last one, from 0: what never happened may be asked for again
	Listed         []listed          `db:"listed"` // what is to be done
	UpdateTime     time.Time         `db:"update_time"`
}

// listed is an item of the list and the event that put it there: that is kept with the state, and not taken from the last
// event when the list is written, because one transaction may fold several.
type listed struct {
	fulfillment.Item
	Trigger trigger `json:"trigger"`
}

// trigger is an event, with what is passed on from it to everything that it leads to.
type trigger struct {
	EventID       string    `json:"event_id"`
	CorrelationID string    `json:"correlation_id,omitempty"`
	Traceparent   string    `json:"traceparent,omitempty"`
	OccurredAt    time.Time `json:"occurred_at"`
}

// relist is the list after an event. What stood on it before keeps its cause.
func relist(before []listed, items []fulfillment.Item, because trigger) []listed {
	after := make([]listed, len(items))
	for i, item := range items {
		after[i] = listed{item, because}
		if n := slices.IndexFunc(before, func(l listed) bool { return l.Item == item }); n >= 0 {
			after[i] = before[n]
		}
	}
	return after
}

var states = consumer.Fold[orderRow]{
	Name: "fulfillment_states", Version: 4,
	Categories: []string{eventschema.Order, eventschema.Payment, eventschema.Fulfillment},
	Evolve: func(r *orderRow, e consumer.Event) {
		if _, ok := e.Message.(*paymentevent.AuthorizationRequested); ok && r.State.Payment.Authorization != fulfillment.Unasked {
			r.Intent++
		}
		r.State.Evolve(e.Message, e.OccurredAt)
		r.Goal, r.Priority = string(r.State.Goal), int64(r.State.Priority)
		r.Attention = r.State.Attention()
		r.NeedsAttention = r.Attention != ""
		r.Listed = relist(r.Listed, r.State.ToDo(), trigger{e.ID.String(), e.CorrelationID, e.Traceparent, e.OccurredAt})
		r.UpdateTime = e.OccurredAt
	},
}

// todoRow is an item of the to-do list, with all that is needed to carry it out.
type todoRow struct {
	Step      string `db:"step,key"`       // a [fulfillmentevent.Step] by its short name
	ProductID string `db:"product_id,key"` // "": the step concerns no line
	Priority  int64  `db:"priority"`

	Quantity      int64  `db:"quantity"`
	CustomerID    string `db:"customer_id"`
	PaymentMethod string `db:"payment_method"`
	Currency      string `db:"currency"`
	Total         int64  `db:"total_minor"`
	RejectReason  int64  `db:"reject_reason"`
	Intent        int64  `db:"intent"` // of a payment that was asked for again, which one the step is about

	// The event that put the item on the list, and since when it stands there.
	CausationID   string    `db:"causation_id"`
	CorrelationID string    `db:"correlation_id"`
	Traceparent   string    `db:"traceparent"`
	Since         time.Time `db:"since"`
	// The executor's own notes on its failures.
	Attempts  int64     `db:"attempts,local"`
	NextTry   time.Time `db:"next_try,local"` // zero: at once
	LastError string    `db:"last_error,local"`
}

var todo = consumer.List[orderRow, todoRow]{
	Name: "todo", Version: 4, Of: &states,
	Indexes: []string{"priority DESC, since, key, step, product_id"}, // the order in which it is done, however long it is
	Entries: func(r orderRow) []todoRow {
		rows := make([]todoRow, len(r.Listed))
		for i, item := range r.Listed {
			rows[i] = todoRow{
				Step: stepName(item.Step), ProductID: item.ProductID, Priority: r.Priority,
				Quantity: quantity(r.State.Lines, item.ProductID), CustomerID: r.State.CustomerID,
				PaymentMethod: r.State.Method, Currency: r.State.Currency, Total: r.State.Total,
				RejectReason: int64(r.State.RejectReason),
				CausationID:  item.Trigger.EventID, CorrelationID: item.Trigger.CorrelationID, Traceparent: item.Trigger.Traceparent,
				Since: item.Trigger.OccurredAt,
			}
			if slices.Contains(paymentSteps, item.Step) {
				rows[i].Intent = r.Intent
			}
		}
		return rows
	},
}

// Models is everything the saga runs.
func Models() []consumer.Model { return []consumer.Model{states.Model(&todo)} }

// Replays is the saga's states and its to-do list, for looking at one order event by event.
func Replays() []consumer.Replay { return []consumer.Replay{states.Replay(), todo.Replay()} }

func quantity(lines []fulfillment.Line, productID string) int64 {
	for _, l := range lines {
		if l.ProductID == productID {
			return l.Quantity
		}
	}
	return 0
}

const stepPrefix = "STEP_"

func stepName(s fulfillmentevent.Step) string { return strings.TrimPrefix(s.String(), stepPrefix) }

// task is an item of the list, of one order.
type task struct {
	OrderID string `db:"key"`
	todoRow
}

func (t task) step() fulfillmentevent.Step {
	return fulfillmentevent.Step(fulfillmentevent.Step_value[stepPrefix+t.Step])
}

func (t task) item() fulfillment.Item {
	return fulfillment.Item{Step: t.step(), ProductID: t.ProductID}
}

func (t task) amount() *typev1.Money {
	return &typev1.Money{CurrencyCode: t.Currency, AmountMinor: t.Total}
}
