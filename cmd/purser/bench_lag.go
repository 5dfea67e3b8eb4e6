package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/purserhq/purser/internal/bench"
)

const (
	lagProducts = 100
	// What the lag should be at most, for 99 in 100 orders, on two cores at the rates that are the default.
	lagGoal     = 50 * time.Millisecond
	peakLagGoal = 250 * time.Millisecond
)

// longRounds show whether the work keeps up.
var longRounds = bench.Plan{Rounds: 5, Each: 3 * time.Second}

// benchLagCommand measures how long what was accepted is not yet seen, while everything runs.
func benchLagCommand() *cobra.Command {
	var rate, peakRate int
	cmd := newBench("lag", "Measure the time from an accepted order to a query that shows it, at rates that do not wait for answers", longRounds,
		func(ctx context.Context, b *benchRun) ([]bench.Figure, error) {
			if err := cmp.Or(atLeast(1, "rate", rate), atLeast(1, "peak-rate", peakRate)); err != nil {
				return nil, err
			}
			return benchLag(ctx, b, rate, peakRate)
		})
	cmd.Flags().IntVar(&rate, "rate", 200, "orders to place in a second")
	cmd.Flags().IntVar(&peakRate, "peak-rate", 500, "orders to place in a second for the second figure")
	return cmd
}

func benchLag(ctx context.Context, b *benchRun, rate, peakRate int) ([]bench.Figure, error) {
	p, err := b.startPurser(ctx)
	if err != nil {
		return nil, err
	}
	_, null, err := b.startNull()
	if err != nil {
		return nil, err
	}
	products := bench.Products("product", lagProducts)
	if err := bench.CreateProducts(ctx, p.write, products); err != nil {
		return nil, err
	}
	if err := bench.ReceiveStock(ctx, p.inventory, products, plenty); err != nil {
		return nil, err
	}
	load := func(rate int) bench.Load {
		return bench.Lag(fmt.Sprintf("lag at %d/s", rate), p.write, p.query, rate, products)
	}
	results, err := b.plan.Run(ctx, load(rate), load(peakRate), bench.Echo(null, benchCallers), bench.Sync(b.dir))
	if err != nil {
		return nil, err
	}
	usual, peak, echo, sync := results[0], results[1], results[2], results[3]
	return []bench.Figure{usual.P99Within(lagGoal), peak.P99Within(peakLagGoal), echo.Alone(), sync.Alone()}, nil
}

// benchPurser is everything that `purser dev` runs, and connections to those services that a bench asks.
type benchPurser struct {
	write, inventory, query *grpc.ClientConn
}

func (b *benchRun) startPurser(ctx context.Context) (p benchPurser, err error) {
	postgres, err := b.startPostgres(ctx)
	if err != nil {
		return p, err
	}
	store, err := b.startStore()
	if err != nil {
		return p, err
	}
	f := serviceFlags{eventstoreURL: urlOf(store), postgresURL: postgres.URL()}
	if p.write, err = b.startService(ctx, b.process.write, f); err != nil {
		return p, err
	}
	if p.inventory, err = b.startService(ctx, b.process.inventory, f); err != nil {
		return p, err
	}
	payment, err := b.startService(ctx, b.process.payment, f)
	if err != nil {
		return p, err
	}
	if _, err = b.startService(ctx, b.wholeProjector, f); err != nil {
		return p, err
	}
	if p.query, err = b.startService(ctx, b.process.query, f); err != nil {
		return p, err
	}
	f.writeURL, f.inventoryURL, f.paymentURL = p.write.Target(), p.inventory.Target(), payment.Target()
	_, err = b.startService(ctx, b.process.saga, f)
	return p, err
}
