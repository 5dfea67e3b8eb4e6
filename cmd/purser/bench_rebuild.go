package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/bench"
	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/daemon"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/readmodel"
	projectionv1 "github.com/purserhq/purser/proto/purser/projection/v1"
)

const rebuildBar = 0.7

// wholeRounds are for loads that take as long as they take.
var wholeRounds = bench.Plan{Rounds: 3, Each: time.Second}

// benchRebuildCommand measures how fast a read model is made anew.
func benchRebuildCommand() *cobra.Command {
	var orders int
	cmd := newBench("rebuild", "Measure a rebuild of order_summaries, beside the reading of its events and the copying of its rows", wholeRounds,
		func(ctx context.Context, b *benchRun) ([]bench.Figure, error) { return benchRebuild(ctx, b, orders) })
	cmd.Flags().IntVar(&orders, "orders", 200_000, "orders to store, of five events and more each")
	return cmd
}

func benchRebuild(ctx context.Context, b *benchRun, orders int) ([]bench.Figure, error) {
	postgres, log, f, err := b.startFilled(ctx, orders)
	if err != nil {
		return nil, err
	}
	model := readmodel.OrderSummaries.Name
	projector, err := b.startService(ctx, func(f serviceFlags) (daemon.Service, error) { return b.projector(f, []string{model}) }, f)
	if err != nil {
		return nil, err
	}
	pool, err := b.connectPostgres(postgres.URL())
	if err != nil {
		return nil, err
	}
	at, err := consumer.NewReader(pool).Find(ctx, &readmodel.OrderSummaries)
	if err != nil {
		return nil, err
	}
	status, err := projectionv1.NewProjectionServiceClient(projector).GetProjection(ctx, &projectionv1.GetProjectionRequest{Name: model})
	if err != nil {
		return nil, err
	}
	events := int(status.GetProjection().GetBuilds()[0].GetEvents())
	results, err := b.plan.Run(ctx,
		bench.Follow("read", log, eventschema.Categories()),
		bench.Copy("copy", pool, at.Table, events),
		bench.Rebuild("rebuild", projector, model),
		bench.Sync(b.dir),
	)
	if err != nil {
		return nil, err
	}
	read, copied, rebuilt, sync := results[0], results[1], results[2], results[3]
	return []bench.Figure{rebuilt.Against(rebuildBar, bench.Slower(read, copied)), read.Alone(), copied.Alone(), sync.Alone()}, nil
}
