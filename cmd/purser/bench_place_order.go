package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/bench"
)

const (
	placeOrderBar      = 0.75
	placeOrderProducts = 100
)

// benchPlaceOrderCommand measures what the write service makes of the append and the call that an order takes at least.
func benchPlaceOrderCommand() *cobra.Command {
	return newBench("place-order", "Measure orders placed over gRPC, beside the one append and the one call that each takes at least", shortRounds, benchPlaceOrder)
}

func benchPlaceOrder(ctx context.Context, b *benchRun) ([]bench.Figure, error) {
	store, err := b.startStore()
	if err != nil {
		return nil, err
	}
	client, err := b.connect(ctx, store)
	if err != nil {
		return nil, err
	}
	_, null, err := b.startNull()
	if err != nil {
		return nil, err
	}
	write, err := b.startService(ctx, b.write, serviceFlags{eventstoreURL: urlOf(store)})
	if err != nil {
		return nil, err
	}
	products := bench.Products("product", placeOrderProducts)
	if err := bench.CreateProducts(ctx, write, products); err != nil {
		return nil, err
	}
	results, err := b.plan.Run(ctx,
		bench.Append("append", client, benchCallers),
		bench.PlaceOrder("place-order", write, benchCallers, products),
		bench.Echo(null, benchCallers),
		bench.Sync(b.dir),
	)
	if err != nil {
		return nil, err
	}
	appended, placed, echo, sync := results[0], results[1], results[2], results[3]
	return []bench.Figure{placed.Against(placeOrderBar, appended, echo), appended.Alone(), echo.Alone(), sync.Alone()}, nil
}
