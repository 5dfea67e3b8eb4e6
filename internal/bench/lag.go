package bench

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
)

// settlePoll is how often is looked whether the orders of a round have come to their ends.
const settlePoll = 50 * time.Millisecond

// OpenLoop is the Run of a load in which so many operations begin in a second, whatever becomes of those before. What an
// operation says that it took counts from when it should have begun: that the generator was late is added.
func OpenLoop(perSecond int, operation func(ctx context.Context, n int) (time.Duration, error)) func(context.Context, time.Duration) (Sample, error) {
	return func(ctx context.Context, d time.Duration) (Sample, error) {
		s := Sample{Units: operations(perSecond, d)}
		s.Latencies = make([]time.Duration, s.Units)
		g, ctx := errgroup.WithContext(ctx)
		begun := time.Now()
		for n := range s.Units {
			due := begun.Add(time.Duration(n) * time.Second / time.Duration(perSecond))
			select {
			case <-ctx.Done():
				return Sample{}, g.Wait()
			case <-time.After(time.Until(due)):
			}
			g.Go(func() error {
				late := time.Since(due)
				took, err := operation(ctx, n)
				s.Latencies[n] = late + took
				return err
			})
		}
		err := g.Wait()
		s.Elapsed = time.Since(begun)
		return s, err
	}
}

func operations(perSecond int, d time.Duration) int {
	return max(1, int(d.Seconds()*float64(perSecond)))
}

// Lag is the load of so many orders placed in a second. What is measured of each is the time from the answer that accepts it
// to the answer of a query that shows it, asked for at once with the order's consistency token. What follows from a round's
// orders is waited for after the round, so that none leaves its work to the next.
func Lag(figure string, write, query grpc.ClientConnInterface, perSecond int, products []string) Load {
	orders, queries := orderv1.NewOrderServiceClient(write), queryv1.NewQueryServiceClient(query)
	b := newBuyer(figure, 0, products)
	return Load{Figure: figure, Unit: "orders/s", Run: func(ctx context.Context, d time.Duration) (Sample, error) {
		requests := make([]*orderv1.PlaceOrderRequest, operations(perSecond, d))
		for i := range requests {
			requests[i], _ = b.order()
		}
		s, err := OpenLoop(perSecond, func(ctx context.Context, n int) (time.Duration, error) {
			reply, err := orders.PlaceOrder(ctx, requests[n])
			if err != nil {
				return 0, fmt.Errorf("place an order: %w", err)
			}
			accepted := time.Now()
			_, err = queries.GetOrder(ctx, &queryv1.GetOrderRequest{
				Order:            &queryv1.GetOrderRequest_OrderId{OrderId: reply.GetOrderId()},
				ConsistencyToken: reply.GetConsistencyToken(),
			})
			if err != nil {
				err = fmt.Errorf("an order that was accepted is not seen after %s: %w", time.Since(accepted), err)
			}
			return time.Since(accepted), err
		})(ctx, d)
		if err != nil {
			return s, err
		}
		return s, settled(ctx, queries)
	}}
}

// settled waits until no order is on its way.
func settled(ctx context.Context, queries queryv1.QueryServiceClient) error {
	for {
		left, err := queries.ListOrders(ctx, &queryv1.ListOrdersRequest{Filter: "state = PLACED", PageSize: 1})
		if err != nil || len(left.GetOrders()) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settlePoll):
		}
	}
}
