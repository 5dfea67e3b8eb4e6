package readmodel

import "github.com/purserhq/purser/internal/consumer"

// ProductTotal is what was sold of one product in one currency.
type ProductTotal struct {
	ProductID string `db:"product_id,key"`
	Currency  string `db:"currency,key"`
	Orders    int64  `db:"orders"`
	Units     int64  `db:"units"`
	Revenue   int64  `db:"revenue" money:"currency"`
}

// ProductSales adds up the lines of the orders that were neither rejected nor cancelled, at the prices they were placed at.
// An order has a product in one line at most.
var ProductSales = consumer.Report[OrderDetail, ProductTotal]{
	Name: "product_sales", Version: 1, Of: &OrderDetails,
	Contribute: func(o OrderDetail) []ProductTotal {
		if !sold(o.State) {
			return nil
		}
		totals := make([]ProductTotal, len(o.Lines))
		for i, l := range o.Lines {
			totals[i] = ProductTotal{
				ProductID: l.ProductID, Currency: l.Currency, Orders: 1, Units: l.Quantity, Revenue: l.Quantity * l.UnitPrice,
			}
		}
		return totals
	},
}
