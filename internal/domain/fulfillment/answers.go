package fulfillment

import (
	"maps"
	"time"

	"google.golang.org/protobuf/proto"

	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
)

// Answers is what an order's fulfilment stream alone says: the answers to items that no other stream records. It
// decides which answers are news. The zero value is a stream without events.
type Answers struct {
	Lines    map[string]LineFact // by product
	Refusals map[Item]bool
}

// Evolve folds an event into the answers.
func (a *Answers) Evolve(m proto.Message, _ time.Time) {
	switch e := m.(type) {
	case *fulfillmentevent.LineReserved:
		a.learn(e.GetProductId(), Held)
	case *fulfillmentevent.LineRefused:
		a.learn(e.GetProductId(), Refused)
	case *fulfillmentevent.LineReleased:
		a.learn(e.GetProductId(), Released)
	case *fulfillmentevent.StepRefused:
		if a.Refusals == nil {
			a.Refusals = map[Item]bool{}
		}
		a.Refusals[Item{e.GetStep(), e.GetProductId()}] = true
	}
}

// Clone returns a copy.
func (a *Answers) Clone() *Answers {
	return &Answers{Lines: maps.Clone(a.Lines), Refusals: maps.Clone(a.Refusals)}
}

func (a *Answers) learn(productID string, f LineFact) {
	if a.Lines == nil {
		a.Lines = map[string]LineFact{}
	}
	a.Lines[productID] = max(a.Lines[productID], f)
}

// RecordReserved means that a line is held.
type RecordReserved struct {
	OrderID, ProductID string
	Quantity           int64
}

// RecordReserved records it, unless the line is known to be held, or released since.
func (a *Answers) RecordReserved(c RecordReserved) ([]proto.Message, error) {
	if a.Lines[c.ProductID] >= Held {
		return nil, nil
	}
	return events(&fulfillmentevent.LineReserved{OrderId: c.OrderID, ProductId: c.ProductID, Quantity: c.Quantity})
}

// RecordRefused means that too little was available for a line.
type RecordRefused struct {
	OrderID, ProductID   string
	Requested, Available int64
}

// RecordRefused records it, unless something is known of the line.
func (a *Answers) RecordRefused(c RecordRefused) ([]proto.Message, error) {
	if a.Lines[c.ProductID] >= Refused {
		return nil, nil
	}
	return events(&fulfillmentevent.LineRefused{
		OrderId: c.OrderID, ProductId: c.ProductID, Requested: c.Requested, Available: c.Available,
	})
}

// RecordReleased means that nothing is held for a line, and nothing will be.
type RecordReleased struct{ OrderID, ProductID string }

// RecordReleased records it once.
func (a *Answers) RecordReleased(c RecordReleased) ([]proto.Message, error) {
	if a.Lines[c.ProductID] >= Released {
		return nil, nil
	}
	return events(&fulfillmentevent.LineReleased{OrderId: c.OrderID, ProductId: c.ProductID})
}

// RecordStepRefused means that an item was refused for a reason that no rule covers.
type RecordStepRefused struct {
	OrderID string
	Item    Item
	Reason  string
}

// RecordStepRefused records it once for each item.
func (a *Answers) RecordStepRefused(c RecordStepRefused) ([]proto.Message, error) {
	if a.Refusals[c.Item] {
		return nil, nil
	}
	return events(&fulfillmentevent.StepRefused{
		OrderId: c.OrderID, Step: c.Item.Step, ProductId: c.Item.ProductID, Reason: c.Reason,
	})
}

func events(m ...proto.Message) ([]proto.Message, error) { return m, nil }
