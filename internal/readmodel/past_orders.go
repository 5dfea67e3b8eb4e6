package readmodel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/domain/fulfillment"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/fault"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// PastOrders are orders as they were, folded from the log by [OrderDetails] itself, so that what it says of the past and
// [Queries.GetOrder] of the present can't drift apart. It is safe for concurrent use.
//
// A point in the past is an event of the order's own stream, and its position in the log bounds what is folded of the
// payment and the fulfilment. So it is one cut through the log, the same whenever it is asked for, and not one by the clocks
// of several services.
//
// Errors are faults (ORDER_NOT_FOUND, INVALID_FIELD, ENTITY_PARKED), or those of package eventlog.
type PastOrders struct {
	log consumer.History
}

// NewPastOrders returns the past of the orders in a log.
func NewPastOrders(log consumer.History) *PastOrders { return &PastOrders{log: log} }

// AsOf returns an order as it was at a time: after the last of its events before the first one that is later.
func (p *PastOrders) AsOf(ctx context.Context, id string, at time.Time) (OrderDetail, error) {
	return p.upTo(ctx, id, func(events []eventlog.Recorded) (eventlog.Recorded, error) {
		later := slices.IndexFunc(events, func(e eventlog.Recorded) bool { return occurredAt(e).After(at) })
		switch later {
		case 0:
			missing := fault.Missing(typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND, "order", id)
			missing.Message = fmt.Sprintf("order %q did not exist yet", id)
			return eventlog.Recorded{}, missing
		case -1:
			later = len(events)
		}
		return events[later-1], nil
	})
}

// AsOfRevision returns an order as it was after an event of its own stream.
func (p *PastOrders) AsOfRevision(ctx context.Context, id string, revision eventlog.Revision) (OrderDetail, error) {
	return p.upTo(ctx, id, func(events []eventlog.Recorded) (eventlog.Recorded, error) {
		n := slices.IndexFunc(events, func(e eventlog.Recorded) bool { return e.Revision == revision })
		if n < 0 {
			return eventlog.Recorded{}, fault.InvalidField("as_of_revision", "the order's last revision is %d", events[len(events)-1].Revision)
		}
		return events[n], nil
	})
}

// upTo folds an order up to one of its own events, which is picked from all there are.
func (p *PastOrders) upTo(ctx context.Context, id string, pick func([]eventlog.Recorded) (eventlog.Recorded, error)) (OrderDetail, error) {
	ctx, cancel := consumer.Sooner(ctx) // the log is asked again and again until then
	defer cancel()
	events, err := p.log.Read(ctx, eventlog.StreamName(eventschema.Order, id), 0, 0)
	if err != nil {
		return OrderDetail{}, fmt.Errorf("get past order: %w", err)
	}
	if len(events) == 0 {
		return OrderDetail{}, fault.Missing(typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND, "order", id)
	}
	last, err := pick(events)
	if err != nil {
		return OrderDetail{}, err
	}
	o, err := OrderDetails.At(ctx, p.log, id, last.Position)
	switch {
	case errors.Is(err, consumer.ErrPoison):
		return OrderDetail{}, fault.Down(typev1.ErrorReason_ERROR_REASON_ENTITY_PARKED,
			fmt.Sprintf("events of %q could not be applied; an operator is needed", id), err)
	case errors.Is(err, eventlog.ErrNewerVersion):
		return OrderDetail{}, fault.Down(typev1.ErrorReason_ERROR_REASON_PROJECTION_LAG, "a newer version of this service can answer", err)
	case err != nil:
		return OrderDetail{}, fmt.Errorf("get past order: %w", err)
	case o.State == "":
		return OrderDetail{}, fault.Missing(typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND, "order", id)
	}
	o.Fulfillment = fulfillment.State{}
	return o, nil
}

// occurredAt is the time of an event as rows and timelines show it, so that one who asks for a time that was shown gets the
// event too.
func occurredAt(e eventlog.Recorded) time.Time {
	var m eventlog.Metadata
	if json.Unmarshal(e.Metadata, &m) != nil || m.OccurredAt.IsZero() {
		return e.Created
	}
	return m.OccurredAt.Truncate(time.Microsecond)
}
