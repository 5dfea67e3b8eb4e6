package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/bench"
)

const appendBar = 0.8

// benchAppendCommand measures what the embedded store takes of what the official client allows.
func benchAppendCommand() *cobra.Command {
	return newBench("append", "Measure appends to the embedded event store, each on disk before it is acknowledged", shortRounds, benchAppend)
}

func benchAppend(ctx context.Context, b *benchRun) ([]bench.Figure, error) {
	s, err := b.startStores(ctx)
	if err != nil {
		return nil, err
	}
	results, err := b.plan.Run(ctx,
		bench.Append("null append", s.null, benchCallers),
		bench.Append("append", s.embedded, benchCallers),
		bench.Echo(s.echo, benchCallers),
		bench.Sync(b.dir),
	)
	if err != nil {
		return nil, err
	}
	null, appended, echo, sync := results[0], results[1], results[2], results[3]
	return []bench.Figure{appended.Against(appendBar, null), null.Alone(), echo.Alone(), sync.Alone()}, nil
}
