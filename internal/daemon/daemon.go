// Package daemon runs services: their ports, health, metrics and orderly stop.
//
// All ports are bound before anything is served, so a process that can't have them says so at once and does nothing.
// Readiness is asked of the service itself, again and again, and is what grpc.health.v1 and /readyz say. A stop first
// says "not ready", lets calls under way finish for a bounded time, and then ends the background loops.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

const (
	// drainTimeout bounds how long calls under way may take to finish after a stop was asked for.
	drainTimeout = 10 * time.Second
	// readyTimeout bounds one look at whether a service is ready, readyInterval the time between two.
	readyTimeout  = 2 * time.Second
	readyInterval = 200 * time.Millisecond
	headerTimeout = 5 * time.Second
)

// Service is what a process runs.
type Service struct {
	// Name says in logs and errors which service it is.
	Name string
	// GRPC serves the service's API on GRPCAddr (host:port); nil: it has none.
	GRPC     *grpc.Server
	GRPCAddr string
	// HTTPAddr (host:port) is where /metrics, /livez and /readyz are; empty: nowhere.
	HTTPAddr string
	// Ready returns nil while the service can do its work; a nil Ready is always ready.
	Ready func(ctx context.Context) error
	// Run are background loops, each until ctx ends. One that returns an error before that stops the process.
	Run []func(ctx context.Context) error
	// Drain is called when a stop begins, and ends the calls that would not finish by themselves; nil: there are none.
	Drain func()
	// Close is called after everything has stopped.
	Close func()
}

// Run runs services until ctx ends, and returns nil then; or until something fails.
func Run(ctx context.Context, log *slog.Logger, gatherer prometheus.Gatherer, services ...Service) error {
	running := make([]*running, 0, len(services))
	defer func() {
		for _, r := range running {
			r.close()
		}
	}()
	for _, s := range services {
		r, err := bind(s)
		running = append(running, r)
		if err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, r := range running {
		r.start(ctx, g, log, gatherer)
	}
	return g.Wait()
}

// running is a service with its ports.
type running struct {
	Service
	grpcListener, httpListener net.Listener
	health                     *health.Server
}

func bind(s Service) (*running, error) {
	r := &running{Service: s}
	var err error
	if s.GRPC != nil {
		if r.grpcListener, err = listen(s.Name, s.GRPCAddr, "--grpc-port"); err != nil {
			return r, err
		}
		r.health = health.NewServer()
		r.health.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
		healthv1.RegisterHealthServer(s.GRPC, r.health)
		for name := range s.GRPC.GetServiceInfo() {
			r.health.SetServingStatus(name, healthv1.HealthCheckResponse_NOT_SERVING)
		}
	}
	if s.HTTPAddr != "" {
		r.httpListener, err = listen(s.Name, s.HTTPAddr, "--http-port")
	}
	return r, err
}

func listen(service, addr, flag string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("the %s service can't listen on %s: the port is in use (%s chooses another)", service, addr, flag)
	case err != nil:
		return nil, fmt.Errorf("the %s service can't listen on %s: %w", service, addr, err)
	}
	return l, nil
}

func (r *running) close() {
	for _, l := range []net.Listener{r.grpcListener, r.httpListener} {
		if l != nil {
			_ = l.Close() // closed already where it was served
		}
	}
	if r.Close != nil {
		r.Close()
	}
}

// start serves, and stops in order when ctx ends. The background loops go on until the calls under way are done.
func (r *running) start(ctx context.Context, g *errgroup.Group, log *slog.Logger, gatherer prometheus.Gatherer) {
	loopCtx, stopLoops := context.WithCancel(context.WithoutCancel(ctx))
	for _, loop := range r.Run {
		g.Go(func() error {
			if err := loop(loopCtx); err != nil && loopCtx.Err() == nil {
				return fmt.Errorf("%s: %w", r.Name, err)
			}
			return nil
		})
	}
	server := &http.Server{Handler: r.handler(ctx, gatherer), ReadHeaderTimeout: headerTimeout}
	if r.httpListener != nil {
		g.Go(func() error {
			if err := server.Serve(r.httpListener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("%s: serve HTTP: %w", r.Name, err)
			}
			return nil
		})
	}
	if r.GRPC != nil {
		g.Go(func() error {
			if err := r.GRPC.Serve(r.grpcListener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				return fmt.Errorf("%s: serve gRPC: %w", r.Name, err)
			}
			return nil
		})
		g.Go(func() error { r.watchHealth(ctx, log); return nil })
	}
	g.Go(func() error {
		<-ctx.Done()
		defer stopLoops()
		r.drain()
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if err := server.Shutdown(stopCtx); err != nil {
			return fmt.Errorf("%s: stop HTTP: %w", r.Name, err)
		}
		return nil
	})
}

// drain lets the calls under way finish, and ends those that take too long.
func (r *running) drain() {
	if r.GRPC == nil {
		return
	}
	r.health.Shutdown()
	if r.Drain != nil {
		r.Drain()
	}
	hard := time.AfterFunc(drainTimeout, r.GRPC.Stop)
	defer hard.Stop()
	r.GRPC.GracefulStop()
}

// watchHealth keeps grpc.health.v1 in step with the service's own word, and logs when that changes.
func (r *running) watchHealth(ctx context.Context, log *slog.Logger) {
	ticker := time.NewTicker(readyInterval)
	defer ticker.Stop()
	var last healthv1.HealthCheckResponse_ServingStatus
	for {
		err := r.ready(ctx)
		if ctx.Err() != nil {
			return
		}
		now := healthv1.HealthCheckResponse_SERVING
		if err != nil {
			now = healthv1.HealthCheckResponse_NOT_SERVING
		}
		if now != last {
			if err != nil {
				log.Info("not ready", "service", r.Name, "because", err)
			} else {
				log.Info("ready", "service", r.Name)
			}
			r.health.SetServingStatus("", now)
			for name := range r.GRPC.GetServiceInfo() {
				r.health.SetServingStatus(name, now)
			}
			last = now
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (r *running) ready(ctx context.Context) error {
	if r.Ready == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return r.Ready(ctx)
}

// handler answers over HTTP. It goes on while calls are drained, and says "not ready" from the end of ctx on.
func (r *running) handler(ctx context.Context, gatherer prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, req *http.Request) {
		if ctx.Err() != nil || r.ready(req.Context()) != nil {
			// What exactly is wrong is for the log: the text of a driver may say too much.
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}
