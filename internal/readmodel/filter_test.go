package readmodel

import (
	"strings"
	"testing"

	"github.com/purserhq/purser/internal/fault"
)

func TestFilter(t *testing.T) {
	for _, c := range []struct {
		filter, sql string
		args        []any
	}{
		{``, `true`, nil},
		{`   `, `true`, nil},
		{`state = CONFIRMED`, `state = $1`, []any{"CONFIRMED"}},
		{`state=CONFIRMED`, `state = $1`, []any{"CONFIRMED"}},
		{`state != PLACED`, `state != $1`, []any{"PLACED"}},
		{`customer_id = "c-1"`, `customer_id = $1`, []any{"c-1"}},
		{`customer_id = 'c-1'`, `customer_id = $1`, []any{"c-1"}},
		{`state = CONFIRMED AND customer_id = "c-1"`, `(state = $1 AND customer_id = $2)`, []any{"CONFIRMED", "c-1"}},
		{`NOT state = REJECTED`, `(NOT state = $1)`, []any{"REJECTED"}},
		{`-state = REJECTED`, `(NOT state = $1)`, []any{"REJECTED"}},
		// AIP-160 binds OR more tightly than AND.
		{`customer_id = "a" AND state = PLACED OR state = CONFIRMED`, `(customer_id = $1 AND (state = $2 OR state = $3))`, []any{"a", "PLACED", "CONFIRMED"}},
		{`NOT (state = PLACED OR state = CONFIRMED)`, `(NOT (state = $1 OR state = $2))`, []any{"PLACED", "CONFIRMED"}},
		// Values are never part of the SQL.
		{`customer_id = "'; DROP TABLE orders; --"`, `customer_id = $1`, []any{"'; DROP TABLE orders; --"}},
		{`customer_id = "PLACED"`, `customer_id = $1`, []any{"PLACED"}},
	} {
		t.Run(c.filter, func(t *testing.T) {
			got, err := orderFilter.translate(c.filter)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, got, condition{c.sql, c.args})
		})
	}
}

func TestFilterRefuses(t *testing.T) {
	for _, filter := range []string{
		`total = 5`, // a field that is not on the list
		`order_id = "7"`,
		`state = LOST`,
		`state = ORDER_STATE_CONFIRMED`,
		`state = "CONFIRMED"`,
		`state = confirmed`,
		`state = customer_id`,
		`state = state`,
		`customer_id = customer_id`,
		`customer_id = "a\x00"`,
		`customer_id = "a\u0000"`,
		`CONFIRMED = state`,
		`CONFIRMED = CONFIRMED`,
		`"c-1" = customer_id`,
		`"c-1" = "c-1"`,
		`customer_id = PLACED`,
		`customer_id = 5`,
		`customer_id = c-1`, // must be quoted
		`customer_id : "c-1"`,
		`customer_id < "c-1"`,
		`customer_id.name = "c-1"`,
		`state`,
		`PLACED`,
		`"c-1"`,
		`c-1`,
		`true`,
		`state = CONFIRMED customer_id = "c-1"`, // a sequence: no operator says how to combine them
		`lower(customer_id) = "c-1"`,
		`state = `,
		`(state = PLACED`,
		`state = PLACED)`,
		`customer_id = "c-1`,
		`AND`,
		`state = PLACED AND`,
		`; DROP TABLE orders`,
		"state = \x00",
		strings.Repeat("(", 1000),
		strings.Repeat("NOT ", 400),
	} {
		name := filter
		if len(name) > 40 {
			name = name[:40]
		}
		t.Run(name, func(t *testing.T) {
			got, err := orderFilter.translate(filter)
			f := fault.Of(err)
			if f == nil || f.Kind != fault.Invalid || len(f.Fields) != 1 || f.Fields[0].Path != "filter" {
				t.Fatalf("got %+v, %v", got, err)
			}
			if strings.ContainsAny(f.Fields[0].Description, "\n") {
				t.Errorf("more than one line: %q", f.Fields[0].Description)
			}
		})
	}
}

func TestFilterSaysWhatIsWrong(t *testing.T) {
	for filter, want := range map[string]string{
		`state = LOST`: `can compare by = and != only: customer_id with a quoted string; ` +
			`state with one of PLACED, CONFIRMED, CANCELLING, CANCELLED, REJECTED`,
		`state = PLACED)`: `is not a filter by AIP-160: unexpected trailing token ) at column 15`,
	} {
		_, err := orderFilter.translate(filter)
		if f := fault.Of(err); f == nil || f.Fields[0].Description != want {
			t.Errorf("%s: got %v, want %s", filter, err, want)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add(`state = CONFIRMED AND NOT customer_id != "c-1" OR (state = PLACED)`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := orderFilter.translate(text)
		if err != nil {
			return
		}
		// Whatever is accepted is made of these alone.
		rest := strings.NewReplacer("customer_id", "", "state", "", "AND", "", "OR", "", "NOT", "", "true", "", "!=", "", "=", "").Replace(c.sql)
		if strings.Trim(rest, " ()$0123456789") != "" {
			t.Errorf("%q became %q", text, c.sql)
		}
		if strings.Count(c.sql, "$") != len(c.args) {
			t.Errorf("%q: %q has %d values", text, c.sql, len(c.args))
		}
	})
}
