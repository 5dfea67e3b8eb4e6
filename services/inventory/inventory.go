// Package inventory serves the commands on stock: it appends to stock-*.
//
// It keeps nothing of its own: any number of replicas may run.
package inventory

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/daemon"
	"github.com/purserhq/purser/internal/domain/catalog"
	"github.com/purserhq/purser/internal/domain/stock"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/origin"
	"github.com/purserhq/purser/internal/rpc"
	"github.com/purserhq/purser/internal/secret"
	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// Config says where the service listens, as host:port.
type Config struct {
	GRPCAddr, HTTPAddr string
}

const (
	// requestWindow is how long a request is remembered by its id, by the events' own time.
	requestWindow = 24 * time.Hour
	// maxRequests and maxReservations are how many of a product: of those that change what is on hand, and of those about an
	// order's reservation, where that itself tells a repeat.
	maxRequests     = 2048
	maxReservations = 1024
	snapshotEvery   = 2000 // events of a product
)

// New returns the service. It is ready while the event log answers, once all snapshots can be read by this build.
func New(cfg Config, log *eventlog.Log, s *secret.Secret, logger *slog.Logger, m *rpc.Metrics) daemon.Service {
	g := rpc.NewServer("inventory", logger, m)
	stocks := aggregate.NewLong[stock.State](log, eventschema.Stock, s, time.Now, long(logger))
	var renewed atomic.Bool
	inventoryv1.RegisterInventoryServiceServer(g, &server{
		stock:    stocks,
		products: aggregate.New[catalog.State](log, eventschema.Product, s, time.Now),
		clock:    time.Now,
	})
	return daemon.Service{
		Name: "inventory", GRPC: g, GRPCAddr: cfg.GRPCAddr, HTTPAddr: cfg.HTTPAddr,
		Ready: func(ctx context.Context) error {
			if !renewed.Load() {
				return errRenewing
			}
			return log.Ping(ctx)
		},
		Run: []func(context.Context) error{func(ctx context.Context) error {
			err := stocks.Renew(ctx, log)
			if ctx.Err() != nil {
				return nil
			}
			renewed.Store(err == nil)
			return err
		}},
	}
}

// long is how the streams of products' stock, which never end, are dealt with.
func long(logger *slog.Logger) aggregate.Long {
	return aggregate.Long{
		Version: stock.Version, SnapshotEvery: snapshotEvery,
		Window: requestWindow, Requests: maxRequests, KeyedRequests: maxReservations, Keyed: stock.OfReservation,
		Log: logger,
	}
}

var errRenewing = errors.New("snapshots of stock are being looked through")

type server struct {
	inventoryv1.UnimplementedInventoryServiceServer
	stock    *aggregate.Handler[stock.State]
	products *aggregate.Handler[catalog.State]
	clock    func() time.Time
}

func (s *server) ReceiveStock(ctx context.Context, req *inventoryv1.ReceiveStockRequest) (*inventoryv1.ReceiveStockResponse, error) {
	c := stock.Receive{Product: req.GetProductId(), Quantity: req.GetQuantity()}
	done, err := s.handle(ctx, req, func(st *stock.State) ([]proto.Message, error) { return st.Receive(c) })
	if err != nil {
		return nil, err
	}
	return &inventoryv1.ReceiveStockResponse{ProductId: req.GetProductId(), Etag: done.Etag(), ConsistencyToken: done.Token()}, nil
}

func (s *server) ReserveStock(ctx context.Context, req *inventoryv1.ReserveStockRequest) (*inventoryv1.ReserveStockResponse, error) {
	c := stock.Reserve{Product: req.GetProductId(), Order: req.GetOrderId(), Quantity: req.GetQuantity()}
	if req.GetValidUntil() != nil {
		c.ValidUntil = req.GetValidUntil().AsTime()
	}
	done, err := s.handle(ctx, req, func(st *stock.State) ([]proto.Message, error) {
		attempt := c
		attempt.Now = s.clock() // not when it arrived: it may have had to wait
		return st.Reserve(attempt)
	})
	if err != nil {
		return nil, err
	}
	return reserveReply(req, done), nil
}

// reserveReply is made from the recorded events, so that a repeat answers the same. None means that the order holds the
// goods already.
func reserveReply(req *inventoryv1.ReserveStockRequest, done aggregate.Done) *inventoryv1.ReserveStockResponse {
	reply := &inventoryv1.ReserveStockResponse{
		ProductId: req.GetProductId(), OrderId: req.GetOrderId(), Requested: req.GetQuantity(),
		Outcome: inventoryv1.ReservationOutcome_RESERVATION_OUTCOME_RESERVED,
		Etag:    done.Etag(), ConsistencyToken: done.Token(),
	}
	for _, m := range done.Messages {
		if rejected, ok := m.(*stockevent.StockReservationRejected); ok {
			reply.Outcome = inventoryv1.ReservationOutcome_RESERVATION_OUTCOME_REJECTED
			reply.Available = rejected.GetAvailable()
		}
	}
	return reply
}

func (s *server) ReleaseReservation(ctx context.Context, req *inventoryv1.ReleaseReservationRequest) (*inventoryv1.ReleaseReservationResponse, error) {
	c := stock.Release{Product: req.GetProductId(), Order: req.GetOrderId(), Reason: releaseReason(ctx)}
	done, err := s.handle(ctx, req, func(st *stock.State) ([]proto.Message, error) { return st.Release(c) })
	if err != nil {
		return nil, err
	}
	return &inventoryv1.ReleaseReservationResponse{
		ProductId: req.GetProductId(), OrderId: req.GetOrderId(), Etag: done.Etag(), ConsistencyToken: done.Token(),
	}, nil
}

func (s *server) CommitReservation(ctx context.Context, req *inventoryv1.CommitReservationRequest) (*inventoryv1.CommitReservationResponse, error) {
	c := stock.Commit{Product: req.GetProductId(), Order: req.GetOrderId()}
	done, err := s.handle(ctx, req, func(st *stock.State) ([]proto.Message, error) { return st.Commit(c) })
	if err != nil {
		return nil, err
	}
	return &inventoryv1.CommitReservationResponse{
		ProductId: req.GetProductId(), OrderId: req.GetOrderId(), Etag: done.Etag(), ConsistencyToken: done.Token(),
	}, nil
}

// releaseReason tells the saga, which releases because the order has ended, from other clients.
func releaseReason(ctx context.Context) stockevent.ReleaseReason {
	if origin.From(ctx).Actor == origin.Saga {
		return stockevent.ReleaseReason_RELEASE_REASON_ORDER_ENDED
	}
	return stockevent.ReleaseReason_RELEASE_REASON_REQUESTED
}

// handle carries out a command on a product's stock, which only a product that was created has.
func (s *server) handle(ctx context.Context, req interface {
	aggregate.Command
	GetProductId() string
}, decide aggregate.Decide[stock.State]) (aggregate.Done, error) {
	return s.stock.Handle(ctx, req.GetProductId(), req, func(st *stock.State) ([]proto.Message, error) {
		if !st.Exists {
			// Asked of the log, which never lags, and only until the first event proves it.
			p, _, err := s.products.Load(ctx, req.GetProductId())
			if err != nil {
				return nil, err
			}
			if !p.Exists {
				return nil, fault.Missing(typev1.ErrorReason_ERROR_REASON_PRODUCT_NOT_FOUND, "product", req.GetProductId())
			}
		}
		return decide(st)
	})
}
