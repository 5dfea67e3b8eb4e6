package bench

import (
	"context"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
)

const (
	reserved = inventoryv1.ReservationOutcome_RESERVATION_OUTCOME_RESERVED
	rejected = inventoryv1.ReservationOutcome_RESERVATION_OUTCOME_REJECTED
)

// Reservations are callers of the inventory service that reserve stock, each for one order after the other, of products that
// they have to themselves. They remember what they were answered, to be held against the log in the end.
type Reservations struct {
	name     string
	client   inventoryv1.InventoryServiceClient
	products []string
	callers  []reserver
}

type reserver struct {
	ids      *rand.ChaCha8
	rand     *rand.Rand       // out of the same source
	reserved map[string]int64 // by product
}

// NewReservations makes so many callers.
func NewReservations(name string, inventory grpc.ClientConnInterface, callers int, products []string) *Reservations {
	r := &Reservations{name: name, client: inventoryv1.NewInventoryServiceClient(inventory), products: products, callers: make([]reserver, callers)}
	for i := range r.callers {
		ids := newRand(name, i)
		r.callers[i] = reserver{ids: ids, rand: rand.New(ids), reserved: map[string]int64{}}
	}
	return r
}

// Load is the load of all callers, each with one call after the other. There must be enough for all.
func (r *Reservations) Load() Load {
	return Load{Figure: r.name, Unit: "calls/s", Run: ClosedLoop(len(r.callers), func(ctx context.Context, i int) error {
		reply, err := r.reserve(ctx, &r.callers[i])
		if err == nil && reply.GetOutcome() != reserved {
			err = fmt.Errorf("of product %s only %d are available", reply.GetProductId(), reply.GetAvailable())
		}
		return err
	})}
}

// SellOut has all callers, who reserve one product, go on until nothing is left of what is on hand. It fails unless they were
// answered that all of it is theirs, and no more.
func (r *Reservations) SellOut(ctx context.Context, onHand int64) error {
	g, callCtx := errgroup.WithContext(ctx)
	for i := range r.callers {
		g.Go(func() error {
			for {
				reply, err := r.reserve(callCtx, &r.callers[i])
				if err != nil || reply.GetOutcome() == rejected && reply.GetAvailable() == 0 {
					return err
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("sell out: %w", err)
	}
	if promised := r.answered(r.products[0]); promised != onHand {
		return fmt.Errorf("sell out: %d of product %s were promised, and %d on hand", promised, r.products[0], onHand)
	}
	return nil
}

// reserve makes one call under a request id and for an order that were not used before.
func (r *Reservations) reserve(ctx context.Context, c *reserver) (*inventoryv1.ReserveStockResponse, error) {
	req := &inventoryv1.ReserveStockRequest{
		RequestId: newID(c.ids), OrderId: newID(c.ids),
		ProductId: r.products[c.rand.IntN(len(r.products))], Quantity: 1 + c.rand.Int64N(maxQuantity),
	}
	reply, err := r.client.ReserveStock(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := checkReserved(req, reply); err != nil {
		return nil, err
	}
	if reply.GetOutcome() == reserved {
		c.reserved[req.GetProductId()] += req.GetQuantity()
	}
	return reply, nil
}

func checkReserved(req *inventoryv1.ReserveStockRequest, reply *inventoryv1.ReserveStockResponse) error {
	ofRequest := reply.GetProductId() == req.GetProductId() && reply.GetOrderId() == req.GetOrderId() && reply.GetRequested() == req.GetQuantity() &&
		reply.GetEtag() != "" && reply.GetConsistencyToken() != ""
	plausible := reply.GetOutcome() == reserved && reply.GetAvailable() == 0 ||
		reply.GetOutcome() == rejected && reply.GetAvailable() >= 0 && reply.GetAvailable() < req.GetQuantity()
	if !ofRequest || !plausible {
		return fmt.Errorf("the request %v was answered %v", req, reply)
	}
	return nil
}

// answered is how much of a product the callers were told is theirs.
func (r *Reservations) answered(product string) (sum int64) {
	for _, c := range r.callers {
		sum += c.reserved[product]
	}
	return sum
}

// Check holds the answers against the log: it fails if more of a product was ever reserved than was on hand, or if what was
// answered is not what is recorded.
func (r *Reservations) Check(ctx context.Context, log *eventlog.Log) error {
	for _, product := range r.products {
		recorded, err := recordedOf(ctx, log, product)
		if err != nil {
			return err
		}
		if answered := r.answered(product); answered != recorded {
			return fmt.Errorf("%d of product %s were promised, but %d are recorded as reserved", answered, product, recorded)
		}
	}
	return nil
}

// recordedOf is how much of a product the log says is reserved. It adds up by itself what it checks, instead of by the code
// that decided it.
func recordedOf(ctx context.Context, log *eventlog.Log, product string) (int64, error) {
	var held, onHand int64
	for recorded, err := range log.Stream(ctx, eventlog.StreamName(eventschema.Stock, product), 0) {
		if err != nil {
			return 0, fmt.Errorf("read the stock of product %s: %w", product, err)
		}
		e, err := log.Decode(recorded)
		if err != nil {
			return 0, fmt.Errorf("read the stock of product %s: %w", product, err)
		}
		for _, m := range e.Messages {
			switch m := m.(type) {
			case *stockevent.StockReceived:
				onHand += m.GetQuantity()
			case *stockevent.StockReserved:
				held += m.GetQuantity()
			}
		}
		if held > onHand {
			return 0, fmt.Errorf("oversold: %d of product %s are reserved at revision %d, and %d on hand", held, product, recorded.Revision, onHand)
		}
	}
	return held, nil
}
