package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/bench"
)

const readBar = 0.8

// benchReadCommand measures what the embedded store delivers of what the official client allows.
func benchReadCommand() *cobra.Command {
	var events int
	cmd := newBench("read", "Measure reads of $all from the embedded event store", shortRounds, func(ctx context.Context, b *benchRun) ([]bench.Figure, error) {
		return benchRead(ctx, b, events)
	})
	cmd.Flags().IntVar(&events, "events", 100_000, "events to store and read")
	return cmd
}

func benchRead(ctx context.Context, b *benchRun, events int) ([]bench.Figure, error) {
	if events < 1 {
		return nil, errors.New("--events must be at least 1")
	}
	s, err := b.startStores(ctx)
	if err != nil {
		return nil, err
	}
	if err := bench.Fill(ctx, s.embedded, events); err != nil {
		return nil, err
	}
	results, err := b.plan.Run(ctx,
		bench.ReadAll("null read", s.null, events),
		bench.ReadAll("read", s.embedded, events),
		bench.Echo(s.echo, benchCallers),
		bench.Sync(b.dir),
	)
	if err != nil {
		return nil, err
	}
	null, read, echo, sync := results[0], results[1], results[2], results[3]
	return []bench.Figure{read.Against(readBar, null), null.Alone(), echo.Alone(), sync.Alone()}, nil
}
