package bench

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	catalogv1 "github.com/purserhq/purser/proto/purser/catalog/v1"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	currency = "EUR"
	// preparing is how many calls at once prepare what a load needs.
	preparing = 64
)

// Products are ids of products: so many, named after what they are for.
func Products(purpose string, count int) []string {
	ids := make([]string, count)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s-%d", purpose, i+1)
	}
	return ids
}

// priceOf is what the i-th of some products costs, in minor units.
func priceOf(i int) int64 { return int64(100 + i) }

// CreateProducts puts products into the catalogue of the write service.
func CreateProducts(ctx context.Context, write grpc.ClientConnInterface, products []string) error {
	catalog := catalogv1.NewCatalogServiceClient(write)
	return each(ctx, products, func(ctx context.Context, i int, requestID string) error {
		_, err := catalog.CreateProduct(ctx, &catalogv1.CreateProductRequest{
			RequestId: requestID, ProductId: products[i], Name: "Product " + products[i],
			Price: &typev1.Money{CurrencyCode: currency, AmountMinor: priceOf(i)},
		})
		return err
	})
}

// ReceiveStock adds so much of each product to what the inventory service has on hand.
func ReceiveStock(ctx context.Context, inventory grpc.ClientConnInterface, products []string, quantity int64) error {
	client := inventoryv1.NewInventoryServiceClient(inventory)
	return each(ctx, products, func(ctx context.Context, i int, requestID string) error {
		_, err := client.ReceiveStock(ctx, &inventoryv1.ReceiveStockRequest{RequestId: requestID, ProductId: products[i], Quantity: quantity})
		return err
	})
}

func each(ctx context.Context, products []string, do func(ctx context.Context, i int, requestID string) error) error {
	ids := newRand("products", 0)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(preparing)
	for i, product := range products {
		requestID := newID(ids)
		g.Go(func() error {
			if err := do(ctx, i, requestID); err != nil {
				return fmt.Errorf("prepare product %s: %w", product, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// newID is a UUID out of a source that never fails.
func newID(source *rand.ChaCha8) string { return uuid.Must(uuid.NewRandomFromReader(source)).String() }
