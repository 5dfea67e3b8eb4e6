package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/purserhq/purser/internal/bench"
	"github.com/purserhq/purser/internal/daemon"
	"github.com/purserhq/purser/internal/secret"
)

// startService runs a service on a free port, and connects to it once it is ready. It stops before the connections and the
// stores that it was built on, and before the services that were started ahead of it.
func (b *benchRun) startService(ctx context.Context, build func(serviceFlags) (daemon.Service, error), f serviceFlags) (*grpc.ClientConn, error) {
	f.secretFile = filepath.Join(b.dir, "secret")
	if _, err := secret.LoadOrCreate(f.secretFile); err != nil {
		return nil, err
	}
	s, err := build(f)
	if err != nil {
		return nil, err
	}
	if s.Close != nil {
		b.closers = append(b.closers, s.Close)
	}
	lis, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		return nil, fmt.Errorf("the %s service can't listen: %w", s.Name, err)
	}
	serviceCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	serve := func(context.Context) error {
		if err := s.GRPC.Serve(lis); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return fmt.Errorf("serve the %s service: %w", s.Name, err)
		}
		return nil
	}
	var running sync.WaitGroup
	for _, loop := range append(s.Run, serve) {
		running.Add(1)
		b.serve(func(context.Context) error {
			defer running.Done()
			return loop(serviceCtx)
		})
	}
	b.closers = append(b.closers, func() {
		s.GRPC.GracefulStop()
		stop()
		running.Wait()
	})
	for s.Ready(ctx) != nil {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(readyPoll):
		}
	}
	conn, err := bench.DialService(lis.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("connect to the %s service: %w", s.Name, err)
	}
	b.closers = append(b.closers, func() { _ = conn.Close() })
	return conn, nil
}

// urlOf is the connection string of an event store in this process.
func urlOf(storeAddr string) string { return "esdb://" + storeAddr + "?tls=false" }

// wholeProjector is a projector that runs all read models.
func (b *benchRun) wholeProjector(f serviceFlags) (daemon.Service, error) { return b.projector(f, nil) }
