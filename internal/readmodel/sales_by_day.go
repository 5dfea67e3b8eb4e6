package readmodel

import (
	"time"

	"github.com/purserhq/purser/internal/consumer"
)

// DaySales is what was sold on one day (UTC) in one currency.
type DaySales struct {
	Day      time.Time `db:"day,key"`
	Currency string    `db:"currency,key"`
	Orders   int64     `db:"orders"`
	Revenue  int64     `db:"revenue" money:"currency"`
}

// SalesByDay counts the orders placed on each day that were neither rejected nor cancelled, and adds up their totals.
var SalesByDay = consumer.Report[OrderSummary, DaySales]{
	Name: "sales_by_day", Version: 1, Of: &OrderSummaries,
	Contribute: func(o OrderSummary) []DaySales {
		if !sold(o.State) {
			return nil
		}
		return []DaySales{{Day: o.CreateTime.UTC().Truncate(24 * time.Hour), Currency: o.Currency, Orders: 1, Revenue: o.Total}}
	},
}
