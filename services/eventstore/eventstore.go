// Package eventstore is the embedded event store: one node, for one machine, that speaks EventStoreDB's gRPC protocol.
//
// It promises that EventStoreDB's own client can't tell it from a real server in what it offers: append under every
// expected revision, read of streams and of $all in both directions and through links, catch-up subscriptions to a stream
// and to filtered $all, deletion of streams, and metadata that limits what a stream shows. What it does not offer is
// UNIMPLEMENTED. An append that was acknowledged is on disk; a subscription delivers every event once, in order, however
// slow its consumer is. There is no authentication.
//
// How: storage/ is the log on disk and decides appends. A read walks the log page by page and sends each page already
// encoded (cursor.go, wire.go). A subscription is such a read that, at the end, waits for the log to grow (subscribe.go):
// what it sends is always read from the log, so there is no queue that could overflow and no hand-over from history to
// live that could lose or repeat an event. gRPC and HTTP (/health/live, /metrics, /backup) share one port (port.go).
package eventstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/serverfeatures"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/purserhq/purser/services/eventstore/storage"
)

const (
	maxReceiveBytes = 16<<20 - 10_000 // as EventStoreDB
	stopTimeout     = 5 * time.Second // for calls in progress to end by themselves
	headerTimeout   = 10 * time.Second

	// streamWorkers is how many calls at once find a goroutine whose stack has grown before; the others make one.
	streamWorkers = 128

	pingInterval    = 10 * time.Second // as EventStoreDB
	pingTimeout     = 10 * time.Second
	minPingInterval = 5 * time.Second // clients ping every 10 s, also without a call
)

// Config says where the store keeps its data and listens.
type Config struct {
	Dir  string // made where there is none; used by one process at a time
	Addr string // host:port; port 0 takes a free one
}

// Server is an open store that holds its port. Serve must be called once.
type Server struct {
	log    *slog.Logger
	store  *storage.Store
	port   *port
	grpc   *grpc.Server
	http   *http.Server
	health *health.Server
	ending chan struct{} // closed when the server stops; ends reads and subscriptions
}

// Open opens the store and listens, so that a later failure to do so is out of the question. Its metrics go to reg, which
// may be nil; if reg can also gather, they are served at /metrics. An error is one sentence for the operator.
func Open(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Server, error) {
	m := newMetrics(reg)
	store, err := storage.Open(cfg.Dir, log, storage.Hooks{Committed: m.committed, Damaged: m.damaged})
	if err != nil {
		return nil, err
	}
	lis, err := listen(cfg.Addr)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	if err := createUsers(store); err != nil {
		return nil, errors.Join(err, lis.Close(), store.Close())
	}
	s := &Server{
		log:    log,
		store:  store,
		port:   newPort(lis),
		health: health.NewServer(),
		ending: make(chan struct{}),
	}
	s.grpc = grpc.NewServer(
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxRecvMsgSize(maxReceiveBytes),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingInterval, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPingInterval, PermitWithoutStream: true}),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.WaitForHandlers(true), // the store is closed after them
	)
	streams.RegisterStreamsServer(s.grpc, &service{store: store, metrics: m, ending: s.ending})
	serverfeatures.RegisterServerFeaturesServer(s.grpc, features{})
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	s.http = &http.Server{Handler: s.routes(reg), ReadHeaderTimeout: headerTimeout}
	return s, nil
}

func listen(addr string) (net.Listener, error) {
	lis, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("the event store can't listen on %s: the port is in use", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("the event store can't listen on %s: %w", addr, err)
	}
	return lis, nil
}

func (s *Server) routes(reg prometheus.Registerer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health/live", s.serveHealth) // where EventStoreDB has it
	mux.HandleFunc("GET /livez", s.serveHealth)       // and where all services of Purser have it
	mux.HandleFunc("GET /readyz", s.serveHealth)
	mux.HandleFunc("GET "+BackupPath, s.serveBackup)
	if g, ok := reg.(prometheus.Gatherer); ok {
		mux.Handle("GET /metrics", promhttp.HandlerFor(g, promhttp.HandlerOpts{}))
	}
	return mux
}

// serveHealth answers 204 while the server runs or, as EventStoreDB does, the code of success that liveCode asks for.
func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	code := http.StatusNoContent
	if asked, err := strconv.Atoi(r.URL.Query().Get("liveCode")); err == nil && asked/100 == 2 {
		code = asked
	}
	select {
	case <-s.ending:
		code = http.StatusServiceUnavailable
	default:
	}
	w.WriteHeader(code)
}

// Addr is the host:port that the server listens on.
func (s *Server) Addr() string { return s.port.Addr().String() }

// Serve serves until ctx ends. Then it ends subscriptions with UNAVAILABLE, gives the calls in progress a few seconds,
// and closes the store. It returns an error only if the server could not go on or not close.
func (s *Server) Serve(ctx context.Context) error {
	s.log.Info("event store ready", "addr", s.Addr(), "head", uint64(s.store.Head()))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.port.serve(ctx) })
	g.Go(func() error {
		if err := s.grpc.Serve(s.port.grpc); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return fmt.Errorf("serve gRPC: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		if err := s.http.Serve(s.port.http); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve HTTP: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		s.shutdown()
		return nil
	})
	err := g.Wait()
	if cerr := s.store.Close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("close the event store: %w", cerr))
	}
	return err
}

func (s *Server) shutdown() {
	close(s.ending)
	s.health.Shutdown()
	impatience := time.AfterFunc(stopTimeout, s.grpc.Stop)
	defer impatience.Stop()
	s.grpc.GracefulStop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close() // the connections that are left have nothing to lose
	}
}
