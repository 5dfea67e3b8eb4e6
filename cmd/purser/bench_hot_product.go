package main

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/purserhq/purser/internal/bench"
)

const (
	hotProductBar    = 1.0
	hotProductP99Bar = 3.0
	plenty           = 1_000_000_000 // of a product whose stock does not end
	few              = 1000          // of one whose stock does
)

// benchHotProductCommand measures what it costs that everybody wants the same product.
func benchHotProductCommand() *cobra.Command {
	var products int
	cmd := newBench("hot-product", "Measure reservations of one product, beside those of many, and check that none is oversold", shortRounds,
		func(ctx context.Context, b *benchRun) ([]bench.Figure, error) {
			return benchHotProduct(ctx, b, products)
		})
	cmd.Flags().IntVar(&products, "products", 1000, "products that the reservations are spread over, for comparison")
	return cmd
}

func benchHotProduct(ctx context.Context, b *benchRun, products int) ([]bench.Figure, error) {
	if products < 1 {
		return nil, errors.New("--products must be at least 1")
	}
	store, err := b.startStore()
	if err != nil {
		return nil, err
	}
	_, null, err := b.startNull()
	if err != nil {
		return nil, err
	}
	hotIDs, spreadIDs, scarceIDs := bench.Products("hot", 1), bench.Products("spread", products), bench.Products("scarce", 1)
	inventory, err := b.stock(ctx, store, slices.Concat(hotIDs, spreadIDs), scarceIDs)
	if err != nil {
		return nil, err
	}
	hot := bench.NewReservations("hot-product", inventory, benchCrowd, hotIDs)
	spread := bench.NewReservations("spread", inventory, benchCrowd, spreadIDs)
	results, err := b.plan.Run(ctx, spread.Load(), hot.Load(), bench.Echo(null, benchCrowd), bench.Sync(b.dir))
	if err != nil {
		return nil, err
	}
	scarce := bench.NewReservations("scarce", inventory, benchCrowd, scarceIDs)
	if err := scarce.SellOut(ctx, few); err != nil {
		return nil, err
	}
	log, err := b.eventLog(urlOf(store))
	if err != nil {
		return nil, err
	}
	for _, r := range []*bench.Reservations{hot, spread, scarce} {
		if err := r.Check(ctx, log); err != nil {
			return nil, err
		}
	}
	limit, one, echo, sync := results[0], results[1], results[2], results[3]
	return []bench.Figure{one.Against(hotProductBar, limit), one.P99Against(hotProductP99Bar, limit), limit.Alone(), echo.Alone(), sync.Alone()}, nil
}

// stock starts the services that it takes, and has products of which there is plenty and products of which there are few.
func (b *benchRun) stock(ctx context.Context, store string, lasting, scarce []string) (inventory *grpc.ClientConn, err error) {
	f := serviceFlags{eventstoreURL: urlOf(store)}
	write, err := b.startService(ctx, b.write, f)
	if err != nil {
		return nil, err
	}
	if inventory, err = b.startService(ctx, b.inventory, f); err != nil {
		return nil, err
	}
	if err := bench.CreateProducts(ctx, write, slices.Concat(lasting, scarce)); err != nil {
		return nil, err
	}
	if err := bench.ReceiveStock(ctx, inventory, lasting, plenty); err != nil {
		return nil, err
	}
	if err := bench.ReceiveStock(ctx, inventory, scarce, few); err != nil {
		return nil, err
	}
	return inventory, nil
}
