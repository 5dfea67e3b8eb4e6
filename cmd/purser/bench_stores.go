package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"

	"github.com/purserhq/purser/internal/bench"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/localpostgres"
	"github.com/purserhq/purser/internal/postgres"
)

// benchStores are an embedded event store and one that stores nothing, in this process, and the connections to them.
type benchStores struct {
	embedded, null *esdb.Client
	echo           grpc.ClientConnInterface // to the one that stores nothing
}

func (b *benchRun) startStores(ctx context.Context) (*benchStores, error) {
	addr, err := b.startStore()
	if err != nil {
		return nil, err
	}
	nullAddr, echo, err := b.startNull()
	if err != nil {
		return nil, err
	}
	s := &benchStores{echo: echo}
	if s.embedded, err = b.connect(ctx, addr); err != nil {
		return nil, err
	}
	if s.null, err = b.connect(ctx, nullAddr); err != nil {
		return nil, err
	}
	return s, nil
}

// startStore starts the embedded store.
func (b *benchRun) startStore() (addr string, err error) {
	store, err := openEventstore(b.process, b.dir, loopback+":0")
	if err != nil {
		return "", err
	}
	b.serve(store.Serve)
	return store.Addr(), nil
}

// startNull starts the store that stores nothing, and makes a connection for echoes.
func (b *benchRun) startNull() (addr string, echo grpc.ClientConnInterface, err error) {
	null, err := bench.ListenNull()
	if err != nil {
		return "", nil, err
	}
	b.serve(null.Serve)
	conn, err := bench.Dial(null.Addr())
	if err != nil {
		return "", nil, fmt.Errorf("connect to the null event store: %w", err)
	}
	b.closers = append(b.closers, func() { _ = conn.Close() })
	return null.Addr(), conn, nil
}

// connect makes a client of an event store.
func (b *benchRun) connect(ctx context.Context, addr string) (*esdb.Client, error) {
	c, err := bench.Connect(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("connect to an event store: %w", err)
	}
	b.closers = append(b.closers, func() { _ = c.Close() })
	return c, nil
}

// startPostgres starts a private Postgres.
func (b *benchRun) startPostgres(ctx context.Context) (*localpostgres.Server, error) {
	if err := os.Chmod(b.dir, 0o711); err != nil { // the server may run as another user
		return nil, fmt.Errorf("open the directory of the bench to Postgres: %w", err)
	}
	server, err := localpostgres.Start(ctx, filepath.Join(b.dir, "postgres"), b.log)
	if err != nil {
		return nil, err
	}
	b.serve(func(ctx context.Context) error {
		err := server.Supervise(ctx)
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		return errors.Join(err, server.Stop(stopCtx))
	})
	return server, nil
}

func (b *benchRun) connectPostgres(url string) (*pgxpool.Pool, error) {
	pool, err := postgres.Open(url, "bench", 0)
	if err == nil {
		b.closers = append(b.closers, pool.Close)
	}
	return pool, err
}

// startFilled starts a Postgres, and a store that holds what so many orders leave behind. The flags lead services there.
func (b *benchRun) startFilled(ctx context.Context, orders int) (*localpostgres.Server, *eventlog.Log, serviceFlags, error) {
	var f serviceFlags
	if err := atLeast(1, "orders", orders); err != nil {
		return nil, nil, f, err
	}
	server, err := b.startPostgres(ctx)
	if err != nil {
		return nil, nil, f, err
	}
	store, err := b.startStore()
	if err != nil {
		return nil, nil, f, err
	}
	log, err := b.eventLog(urlOf(store))
	if err != nil {
		return nil, nil, f, err
	}
	f.eventstoreURL, f.postgresURL = urlOf(store), server.URL()
	return server, log, f, bench.FillOrders(ctx, log, orders)
}
