package main

import (
	"context"
	"fmt"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"google.golang.org/grpc"

	"github.com/purserhq/purser/internal/bench"
)

// benchStores are an embedded event store and one that stores nothing, in this process, and the connections to them.
type benchStores struct {
	embedded, null *esdb.Client
	echo           grpc.ClientConnInterface // to the one that stores nothing
}

func (b *benchRun) startStores(ctx context.Context) (*benchStores, error) {
	store, err := openEventstore(b.process, b.dir, loopback+":0")
	if err != nil {
		return nil, err
	}
	b.serve(store.Serve)
	null, err := bench.ListenNull()
	if err != nil {
		return nil, err
	}
	b.serve(null.Serve)
	echo, err := bench.Dial(null.Addr())
	if err != nil {
		return nil, fmt.Errorf("connect to the null event store: %w", err)
	}
	b.closers = append(b.closers, func() { _ = echo.Close() })
	s := &benchStores{echo: echo}
	for addr, client := range map[string]**esdb.Client{store.Addr(): &s.embedded, null.Addr(): &s.null} {
		c, err := bench.Connect(ctx, addr)
		if err != nil {
			return nil, fmt.Errorf("connect to an event store: %w", err)
		}
		b.closers = append(b.closers, func() { _ = c.Close() })
		*client = c
	}
	return s, nil
}
