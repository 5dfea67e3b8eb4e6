package saga

import (
	"strings"
	"time"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/domain/fulfillment"
	"github.com/purserhq/purser/internal/eventschema"
	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
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
	// Of the last event: what is listed because of it names it as its cause.
	EventID       string    `db:"event_id"`
	CorrelationID string    `db:"correlation_id"`
	UpdateTime    time.Time `db:"update_time"`
}

var states = consumer.Fold[orderRow]{
	Name: "fulfillment_states", Version: 2,
	Categories: []string{eventschema.Order, eventschema.Payment, eventschema.Fulfillment},
	Evolve: func(r *orderRow, e consumer.Event) {
		r.State.Evolve(e.Message, e.OccurredAt)
		r.Goal, r.Priority = string(r.State.Goal), int64(r.State.Priority)
		r.Attention = r.State.Attention()
		r.NeedsAttention = r.Attention != ""
		r.EventID, r.CorrelationID, r.UpdateTime = e.ID.String(), e.CorrelationID, e.OccurredAt
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

	// The event that put the item on the list, and since when it stands there.
	CausationID   string    `db:"causation_id,local"`
	CorrelationID string    `db:"correlation_id,local"`
	Since         time.Time `db:"since,local"`
	// The executor's own notes on its failures.
	Attempts  int64     `db:"attempts,local"`
	NextTry   time.Time `db:"next_try,local"` // zero: at once
	LastError string    `db:"last_error,local"`
}

var todo = consumer.List[orderRow, todoRow]{
	Name: "todo", Version: 1, Of: &states,
	Entries: func(r orderRow) []todoRow {
		items := r.State.ToDo()
		rows := make([]todoRow, len(items))
		for i, item := range items {
			rows[i] = todoRow{
				Step: stepName(item.Step), ProductID: item.ProductID, Priority: r.Priority,
				Quantity: quantity(r.State.Lines, item.ProductID), CustomerID: r.State.CustomerID,
				PaymentMethod: r.State.Method, Currency: r.State.Currency, Total: r.State.Total,
				RejectReason: int64(r.State.RejectReason),
				CausationID:  r.EventID, CorrelationID: r.CorrelationID, Since: r.UpdateTime,
			}
		}
		return rows
	},
}

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
