package readmodel

import (
	"testing"

	"github.com/purserhq/purser/internal/consumer"
)

// A report whose lines could not be shown is noticed when the process starts, and by any test.
func TestReportsAreChecked(t *testing.T) {
	type noKey struct {
		Orders int64 `db:"orders"`
	}
	type noCurrency struct {
		Customer string `db:"customer_id,key"`
		Revenue  int64  `db:"revenue" money:"currency"`
	}
	type otherType struct {
		Customer string  `db:"customer_id,key"`
		Revenue  float64 `db:"revenue"`
	}
	for name, build := range map[string]func(){
		"no key":          func() { reportOf(&consumer.Report[OrderSummary, noKey]{Name: "r", Version: 1}) },
		"no currency":     func() { reportOf(&consumer.Report[OrderSummary, noCurrency]{Name: "r", Version: 1}) },
		"an unknown type": func() { reportOf(&consumer.Report[OrderSummary, otherType]{Name: "r", Version: 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("accepted")
				}
			}()
			build()
		})
	}
}
