package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	"github.com/purserhq/purser/internal/bench"
	"github.com/purserhq/purser/internal/daemon"
	"github.com/purserhq/purser/internal/secret"
)

// startService runs a service on a free port, and connects to it once it is ready. It stops before the connections and the
// event store that it was built on.
func (b *benchRun) startService(ctx context.Context, build func(serviceFlags) (daemon.Service, error), storeAddr string) (*grpc.ClientConn, error) {
	secretFile := filepath.Join(b.dir, "secret")
	if _, err := secret.LoadOrCreate(secretFile); err != nil {
		return nil, err
	}
	s, err := build(serviceFlags{eventstoreURL: urlOf(storeAddr), secretFile: secretFile})
	if err != nil {
		return nil, err
	}
	lis, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		return nil, fmt.Errorf("the %s service can't listen: %w", s.Name, err)
	}
	b.serve(func(context.Context) error {
		if err := s.GRPC.Serve(lis); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return fmt.Errorf("serve the %s service: %w", s.Name, err)
		}
		return nil
	})
	b.closers = append(b.closers, s.GRPC.GracefulStop)
	for _, loop := range s.Run {
		b.serve(loop)
	}
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
