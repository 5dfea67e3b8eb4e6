package readmodel

import (
	"context"
	"fmt"
	"time"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/fault"
	catalogevent "github.com/purserhq/purser/proto/purser/catalog/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// Product is one product of the catalogue.
type Product struct {
	ProductID    string            `db:"product_id,key"`
	Name         string            `db:"name"` // "": not seen to be created yet
	Description  string            `db:"description"`
	Currency     string            `db:"currency"`
	Price        int64             `db:"price_minor"`
	Discontinued bool              `db:"discontinued"`
	Revision     eventlog.Revision `db:"product_revision"`
	CreateTime   time.Time         `db:"create_time"`
	UpdateTime   time.Time         `db:"update_time"`
}

// productText is what of a product is searched. Words are taken as they stand, in whatever language.
const productText = "to_tsvector('simple', name || ' ' || description)"

// Products are the catalogue.
var Products = consumer.Fold[Product]{
	Name: "products", Version: 2,
	Categories: []string{eventschema.Product},
	Indexes: []string{
		"name, product_id",
		"price_minor, product_id",
		"create_time, product_id",
		"update_time, product_id",
		"USING gin (" + productText + ")",
	},
	Evolve: func(r *Product, e consumer.Event) {
		switch m := e.Message.(type) {
		case *catalogevent.ProductCreated:
			r.Name, r.Description = m.GetName(), m.GetDescription()
			r.Currency, r.Price = m.GetPrice().GetCurrencyCode(), m.GetPrice().GetAmountMinor()
			r.CreateTime = e.OccurredAt
		case *catalogevent.ProductRenamed:
			r.Name = m.GetName()
		case *catalogevent.PriceChanged:
			r.Currency, r.Price = m.GetPrice().GetCurrencyCode(), m.GetPrice().GetAmountMinor()
		case *catalogevent.ProductDiscontinued:
			r.Discontinued = true
		}
		r.Revision = e.Revision
		r.UpdateTime = latest(r.UpdateTime, e.OccurredAt)
	},
}

// GetProduct returns a product, or the fault PRODUCT_NOT_FOUND.
func (q *Queries) GetProduct(ctx context.Context, id string, after eventlog.Position) (Product, error) {
	at, err := q.at(ctx, &Products, id, after)
	if err != nil {
		return Product{}, err
	}
	sql := fmt.Sprintf(`SELECT %s FROM %s WHERE product_id = $1 AND name <> ''`, consumer.Columns[Product](), at.Table)
	p, ok, err := one[Product](ctx, q, sql, id)
	if err != nil {
		return Product{}, fmt.Errorf("get product: %w", err)
	}
	if !ok {
		return Product{}, fault.Missing(typev1.ErrorReason_ERROR_REASON_PRODUCT_NOT_FOUND, "product", id)
	}
	return p, nil
}

var productList = list{
	name: "products", shown: "name <> ''",
	search: productText + " @@ to_tsquery('simple', %s)",
	fields: fields{
		stringField("product_id", "product_id").sorted(),
		stringField("name", "name").sorted(),
		intField("price", "price_minor").sorted(),
		intField("price.amount_minor", "price_minor").sorted(),
		stringField("price.currency_code", "currency"),
		boolField("discontinued", "discontinued"),
		timeField("create_time", "create_time").sorted(),
		timeField("update_time", "update_time").sorted(),
	},
	order: sorting{{column: "product_id"}},
}

// ListProducts returns a page of the products, by id unless another order is asked for, and the token of the next page:
// empty on the last.
func (q *Queries) ListProducts(ctx context.Context, p Page, after eventlog.Position) ([]Product, string, error) {
	return listRows(ctx, q, &Products, &productList, p, after)
}
