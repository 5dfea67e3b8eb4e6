package readmodel

import "github.com/purserhq/purser/internal/consumer"

// CustomerTotal is what one customer has ordered in one currency.
type CustomerTotal struct {
	CustomerID string `db:"customer_id,key"`
	Currency   string `db:"currency,key"`
	Orders     int64  `db:"orders"`
	Revenue    int64  `db:"revenue" money:"currency"`
}

// CustomerTotals counts each customer's orders that were neither rejected nor cancelled, and adds up their totals.
var CustomerTotals = consumer.Report[OrderSummary, CustomerTotal]{
	Name: "customer_totals", Version: 1, Of: &OrderSummaries,
	Contribute: func(o OrderSummary) []CustomerTotal {
		if !sold(o.State) {
			return nil
		}
		return []CustomerTotal{{CustomerID: o.CustomerID, Currency: o.Currency, Orders: 1, Revenue: o.Total}}
	},
}
