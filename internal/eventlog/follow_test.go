package eventlog

import (
	"regexp"
	"testing"
)

func TestFiltersMatchAsTheStoreDoes(t *testing.T) {
	prefixes := Filter{Prefixes: []string{"order-", "stock"}}
	expression := Filter{compiled: regexp.MustCompile("-1$")}
	for stream, want := range map[string]struct{ byPrefix, byExpression bool }{
		"order-1": {true, true}, "orders-2": {false, false}, "stocks": {true, false}, "payment-1": {false, true}, "": {false, false},
	} {
		if got := prefixes.matches(stream); got != want.byPrefix {
			t.Errorf("%q by prefix: %t", stream, got)
		}
		if got := expression.matches(stream); got != want.byExpression {
			t.Errorf("%q by expression: %t", stream, got)
		}
	}
}
