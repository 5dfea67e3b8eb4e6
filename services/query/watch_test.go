package query

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventlog/memorylog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	"github.com/purserhq/purser/internal/postgres"
	"github.com/purserhq/purser/internal/readmodel"
	"github.com/purserhq/purser/internal/rpc"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// watched is a log with its read models, and a server of which a client watches orders.
type watched struct {
	t       *testing.T
	log     *memorylog.Log
	pool    *pgxpool.Pool
	watches *readmodel.OrderWatches
	server  *grpc.Server
	client  queryv1.QueryServiceClient
}

func newWatched(t *testing.T, g *grpc.Server) *watched {
	t.Helper()
	pool, err := postgres.Open(pgtest.Database(t), "query", 0)
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	w := &watched{t: t, log: memorylog.New(eventschema.New()), pool: pool, server: g}
	models := readmodel.NewQueries(pool, nil)
	w.watches = readmodel.NewOrderWatches(models, quiet, prometheus.NewRegistry())
	queryv1.RegisterQueryServiceServer(g, &server{models: models, watches: w.watches})
	projector := consumer.New(pool, w.log, "projector", eventschema.Categories(), readmodel.Models(), quiet, consumer.NewMetrics(prometheus.NewRegistry()))
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, run := range []func() error{
		func() error { return projector.Run(ctx) },
		func() error { return w.watches.Run(ctx) },
		func() error { return g.Serve(lis) },
	} {
		running.Go(func() {
			if err := run(); err != nil {
				t.Error(err)
			}
		})
	}
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		g.Stop()
		cancel()
		running.Wait()
		pool.Close()
	})
	w.client = queryv1.NewQueryServiceClient(conn)
	return w
}

func ours() *grpc.Server {
	return rpc.NewServer("query", slog.New(slog.DiscardHandler), rpc.NewMetrics(prometheus.NewRegistry()))
}

// happens appends an event to an order, and returns the token of it.
func (w *watched) happens(id string, m proto.Message, minute int) string {
	w.t.Helper()
	stream := eventlog.StreamName(eventschema.Order, id)
	stored, err := w.log.Read(w.t.Context(), stream, 0, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	a, err := w.log.Append(w.t.Context(), stream, eventlog.Revision(len(stored)-1), []eventlog.NewEvent{{
		ID: uuid.New(), Message: m, Meta: eventlog.Metadata{OccurredAt: noon.Add(time.Duration(minute) * time.Minute)},
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	return aggregate.Token(a.Position)
}

func (w *watched) watch(ctx context.Context, id, token string) queryv1.QueryService_WatchOrderClient {
	w.t.Helper()
	stream, err := w.client.WatchOrder(ctx, &queryv1.WatchOrderRequest{OrderId: id, ConsistencyToken: token})
	if err != nil {
		w.t.Fatal(err)
	}
	return stream
}

// shows expects the next message to show a state.
func (w *watched) shows(stream queryv1.QueryService_WatchOrderClient, state typev1.OrderState) {
	w.t.Helper()
	reply, err := stream.Recv()
	if err != nil {
		w.t.Fatal(err)
	}
	if got := reply.GetOrder().GetState(); got != state {
		w.t.Fatalf("the order is shown as %s, want %s", got, state)
	}
}

// ends expects the stream to end by an error of this code, with this reason.
func (w *watched) ends(stream queryv1.QueryService_WatchOrderClient, code codes.Code, reason string) {
	w.t.Helper()
	reply, err := stream.Recv()
	s := status.Convert(err)
	got := ""
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			got = info.GetReason()
		}
	}
	if s.Code() != code || got != reason {
		w.t.Errorf("%v, %v with reason %q, want %s with %q", reply, err, got, code, reason)
	}
}

// A watch begins with the order as of its token, and goes on with each change, once, until its deadline.
func TestWatchOrder(t *testing.T) {
	w := newWatched(t, ours())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream := w.watch(ctx, "7", w.happens("7", &orderevent.OrderPlaced{OrderId: "7", CustomerId: "c-1"}, 0))
	w.shows(stream, typev1.OrderState_ORDER_STATE_PLACED)
	w.happens("7", &orderevent.OrderConfirmed{OrderId: "7"}, 1)
	w.shows(stream, typev1.OrderState_ORDER_STATE_CONFIRMED)

	// A build that is made anew begins with the past. It is looked at for one who comes now, and the others don't see it: at
	// the latest with what is looked at after it.
	w.happens("8", &orderevent.OrderPlaced{OrderId: "8"}, 0)
	other := w.watch(ctx, "8", w.happens("8", &orderevent.OrderConfirmed{OrderId: "8"}, 1))
	w.shows(other, typev1.OrderState_ORDER_STATE_CONFIRMED)
	if _, err := w.pool.Exec(ctx, "UPDATE "+w.table()+" SET state = 'PLACED', order_revision = 0 WHERE order_id = '7'"); err != nil {
		t.Fatal(err)
	}
	w.shows(w.watch(ctx, "7", ""), typev1.OrderState_ORDER_STATE_PLACED)
	w.happens("8", &orderevent.OrderCancellationRequested{OrderId: "8"}, 2)
	w.shows(other, typev1.OrderState_ORDER_STATE_CANCELLING)
	w.happens("7", &orderevent.OrderCancellationRequested{OrderId: "7"}, 2)
	w.shows(stream, typev1.OrderState_ORDER_STATE_CANCELLING)

	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	stream = w.watch(short, "7", "")
	w.shows(stream, typev1.OrderState_ORDER_STATE_CANCELLING)
	if _, err := stream.Recv(); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("after the deadline, and nothing new: %v", err)
	}
}

func TestWatchOrderThatThereIsNot(t *testing.T) {
	w := newWatched(t, ours())
	token := w.happens("8", &orderevent.OrderPlaced{OrderId: "8"}, 0)
	w.ends(w.watch(t.Context(), "7", token), codes.NotFound, "ORDER_NOT_FOUND")
	w.ends(w.watch(t.Context(), "no id", token), codes.InvalidArgument, "INVALID_FIELD")
	w.ends(w.watch(t.Context(), "8", "not one of ours"), codes.InvalidArgument, "INVALID_FIELD")
}

// A server that stops ends the watches, and so is not held up by them.
func TestAStopEndsWatches(t *testing.T) {
	w := newWatched(t, ours())
	stream := w.watch(t.Context(), "7", w.happens("7", &orderevent.OrderPlaced{OrderId: "7"}, 0))
	w.shows(stream, typev1.OrderState_ORDER_STATE_PLACED)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		w.watches.Stop()
		w.server.GracefulStop()
	}()
	w.ends(stream, codes.Unavailable, "SERVER_STOPPING")
	select {
	case <-stopped:
	case <-time.After(20 * time.Second):
		t.Error("the server does not stop")
	}
}

// The end of a connection that has become old ends its watches too, as something to try again.
func TestAnOldConnectionEndsWatches(t *testing.T) {
	w := newWatched(t, grpc.NewServer(grpc.KeepaliveParams(keepalive.ServerParameters{
		MaxConnectionAge: 2 * time.Second, MaxConnectionAgeGrace: 100 * time.Millisecond,
	})))
	token := w.happens("7", &orderevent.OrderPlaced{OrderId: "7"}, 0)
	if _, err := consumer.NewReader(w.pool).Await(t.Context(), &readmodel.OrderDetails, "", 1); err != nil { // before there is a connection
		t.Fatal(err)
	}
	stream := w.watch(t.Context(), "7", token)
	w.shows(stream, typev1.OrderState_ORDER_STATE_PLACED)
	w.ends(stream, codes.Unavailable, "")
	w.shows(w.watch(t.Context(), "7", ""), typev1.OrderState_ORDER_STATE_PLACED)
}

// table is where the orders lie.
func (w *watched) table() string {
	w.t.Helper()
	at, err := consumer.NewReader(w.pool).Find(w.t.Context(), &readmodel.OrderDetails)
	if err != nil {
		w.t.Fatal(err)
	}
	return at.Table
}
