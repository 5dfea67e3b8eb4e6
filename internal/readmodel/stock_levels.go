package readmodel

import (
	"context"
	"fmt"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/fault"
	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// StockLevel is how much there is of one product.
type StockLevel struct {
	ProductID string `db:"product_id,key"`
	OnHand    int64  `db:"on_hand"`
	Reserved  int64  `db:"reserved"`
	Available int64  `db:"available"` // for more reservations
}

// StockLevels are the products' stock.
var StockLevels = consumer.Fold[StockLevel]{
	Name: "stock_levels", Version: 3,
	Categories: []string{eventschema.Stock},
	Indexes: []string{
		"on_hand, product_id",
		"available, product_id",
	},
	Evolve: func(r *StockLevel, e consumer.Event) {
		switch m := e.Message.(type) {
		case *stockevent.StockReceived:
			r.OnHand += m.GetQuantity()
		case *stockevent.StockReserved:
			r.Reserved += m.GetQuantity()
		case *stockevent.ReservationReleased:
			r.Reserved -= m.GetQuantity() // 0 where nothing was held
		case *stockevent.ReservationCommitted:
			r.OnHand -= m.GetQuantity()
			r.Reserved -= m.GetQuantity()
		}
		r.Available = r.OnHand - r.Reserved
	},
}

// GetStockLevel returns a product's stock: nothing on hand where none was ever received, and the fault
// PRODUCT_NOT_FOUND where there is no such product.
func (q *Queries) GetStockLevel(ctx context.Context, productID string, after eventlog.Position) (StockLevel, error) {
	levels, err := q.at(ctx, &StockLevels, productID, after)
	if err != nil {
		return StockLevel{}, err
	}
	products, err := q.at(ctx, &Products, productID, after)
	if err != nil {
		return StockLevel{}, err
	}
	// The stock's row may be there before the product's, which another stream makes.
	sql := fmt.Sprintf(`SELECT product_id, coalesce(on_hand, 0) AS on_hand, coalesce(reserved, 0) AS reserved, coalesce(available, 0) AS available
		FROM (SELECT product_id, on_hand, reserved, available FROM %s WHERE product_id = $1) AS stock
		FULL JOIN (SELECT product_id FROM %s WHERE product_id = $1 AND name <> '') AS product USING (product_id)`,
		levels.Table, products.Table)
	l, ok, err := one[StockLevel](ctx, q, sql, productID)
	if err != nil {
		return StockLevel{}, fmt.Errorf("get stock level: %w", err)
	}
	if !ok {
		return StockLevel{}, fault.Missing(typev1.ErrorReason_ERROR_REASON_PRODUCT_NOT_FOUND, "product", productID)
	}
	return l, nil
}

var stockList = list{
	name: "stock levels", shown: "true",
	fields: fields{
		stringField("product_id", "product_id").sorted(),
		intField("on_hand", "on_hand").sorted(),
		intField("reserved", "reserved"),
		intField("available", "available").sorted(),
	},
	order: sorting{{column: "product_id"}},
}

// ListStockLevels returns a page of the stock of the products that ever had any, by id unless another order
// is asked for, and the token of the next page: empty on the last.
func (q *Queries) ListStockLevels(ctx context.Context, p Page, after eventlog.Position) ([]StockLevel, string, error) {
	return listRows(ctx, q, &StockLevels, &stockList, p, after)
}
