package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/bench"
	"github.com/purserhq/purser/internal/readmodel"
)

const queryBar = 0.8

// benchQueryCommand measures what the query service makes of the select and the call that an answer takes at least.
func benchQueryCommand() *cobra.Command {
	var orders int
	cmd := newBench("query", "Measure reads of orders over gRPC, beside the one select and the one call that each takes at least", shortRounds,
		func(ctx context.Context, b *benchRun) ([]bench.Figure, error) { return benchQuery(ctx, b, orders) })
	cmd.Flags().IntVar(&orders, "orders", 20_000, "orders to store, and to read any of")
	return cmd
}

func benchQuery(ctx context.Context, b *benchRun, orders int) ([]bench.Figure, error) {
	postgres, _, f, err := b.startFilled(ctx, orders)
	if err != nil {
		return nil, err
	}
	pgbench, err := postgres.Program("pgbench")
	if err != nil {
		return nil, err
	}
	_, null, err := b.startNull()
	if err != nil {
		return nil, err
	}
	if _, err := b.startService(ctx, b.wholeProjector, f); err != nil { // ready once all orders are in the read models
		return nil, err
	}
	query, err := b.startService(ctx, b.query, f)
	if err != nil {
		return nil, err
	}
	pool, err := b.connectPostgres(postgres.URL())
	if err != nil {
		return nil, err
	}
	statement, err := readmodel.NewQueries(pool, nil).SelectOrder(ctx)
	if err != nil {
		return nil, err
	}
	results, err := b.plan.Run(ctx,
		bench.Select("select", pgbench, postgres.URL(), b.dir, statement, orders, benchCallers),
		bench.GetOrder("query", query, benchCallers, orders),
		bench.Echo(null, benchCallers),
		bench.Sync(b.dir),
	)
	if err != nil {
		return nil, err
	}
	selected, answered, echo, sync := results[0], results[1], results[2], results[3]
	return []bench.Figure{answered.Against(queryBar, selected, echo), selected.Alone(), echo.Alone(), sync.Alone()}, nil
}
