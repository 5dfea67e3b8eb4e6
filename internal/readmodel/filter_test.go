package readmodel

import (
	"regexp"
	"strings"
	"testing"
	"time"

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
		{`payment_state = OUTCOME_UNKNOWN`, `payment_state = $1`, []any{"OUTCOME_UNKNOWN"}},
		{`fulfillment_state = RESERVED`, `fulfillment_state = $1`, []any{"RESERVED"}},
		{`priority = CRITICAL`, `priority = $1`, []any{"CRITICAL"}},
		{`reject_reason = OUT_OF_STOCK`, `reject_reason = $1`, []any{"OUT_OF_STOCK"}},
		{`customer_id = "c-1"`, `customer_id = $1`, []any{"c-1"}},
		{`customer_id = 'c-1'`, `customer_id = $1`, []any{"c-1"}},
		{`needs_attention = true`, `needs_attention`, nil},
		{`needs_attention != false`, `needs_attention`, nil},
		{`needs_attention = false`, `(NOT needs_attention)`, nil},
		{`needs_attention`, `needs_attention`, nil},
		{`NOT needs_attention`, `(NOT needs_attention)`, nil},
		{`total >= 5000`, `total_minor >= $1`, []any{int64(5000)}},
		{`total.amount_minor < -1`, `total_minor < $1`, []any{int64(-1)}},
		{`total.currency_code = "EUR"`, `currency = $1`, []any{"EUR"}},
		{`create_time > "2026-01-31T12:00:00Z"`, `create_time > $1`, []any{noon}},
		{`create_time <= timestamp("2026-01-31T12:00:00.5Z")`, `create_time <= $1`, []any{noon.Add(500 * time.Millisecond)}},
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
			got, err := orderList.fields.filter(c.filter)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, got, condition{c.sql, c.args})
		})
	}
}

func TestFilterRefuses(t *testing.T) {
	for _, filter := range []string{
		`lines = 5`, // a field that is not on the list
		`order_id = "7"`,
		`total.currency = "EUR"`,
		`total.amount_minor.x = 1`,
		`state = LOST`,
		`state = ORDER_STATE_CONFIRMED`,
		`state = AUTHORIZED`, // of another enum
		`state = "CONFIRMED"`,
		`state = confirmed`,
		`state = customer_id`,
		`state = state`,
		`state < CONFIRMED`,
		`customer_id = customer_id`,
		`customer_id = "a\x00"`,
		`customer_id = "a\u0000"`,
		`CONFIRMED = state`,
		`CONFIRMED = CONFIRMED`,
		`"c-1" = customer_id`,
		`"c-1" = "c-1"`,
		`"state" = PLACED.x`,
		`customer_id = PLACED`,
		`customer_id = 5`,
		`customer_id = c-1`, // must be quoted
		`customer_id : "c-1"`,
		`customer_id:*`,
		`customer_id < "c-1"`,
		`customer_id.name = "c-1"`,
		`needs_attention = 1`,
		`needs_attention = "true"`,
		`needs_attention = needs_attention`,
		`needs_attention > false`,
		`total = "5"`,
		`total = 5.5`,
		`total = 99999999999999999999`,
		`total = total`,
		`total = (5)x`,
		`create_time > "yesterday"`,
		`create_time > "2026-01-31"`,
		`create_time > "2026-02-31T00:00:00Z"`,
		`create_time > 5`,
		`create_time > timestamp(5)`,
		`create_time > timestamp("2026-01-31T12:00:00Z", "x")`,
		`create_time > duration("5s")`,
		`create_time > 2026-01-31T12:00:00Z`, // must be quoted
		`create_time : "2026-01-31T12:00:00Z"`,
		`state`,
		`PLACED`,
		`"c-1"`,
		`c-1`,
		`true`,
		`5`,
		`state = CONFIRMED customer_id = "c-1"`, // a sequence: no operator says how to combine them
		`lower(customer_id) = "c-1"`,
		`AND(state, state)`,
		`NOT()`,
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
			got, err := orderList.fields.filter(filter)
			refuses(t, err, "filter", got)
		})
	}
}

func refuses(t *testing.T, err error, path string, got any) {
	t.Helper()
	f := fault.Of(err)
	if f == nil || f.Kind != fault.Invalid || len(f.Fields) != 1 || f.Fields[0].Path != path {
		t.Fatalf("got %+v, %v", got, err)
	}
	if strings.ContainsAny(f.Fields[0].Description, "\n") {
		t.Errorf("more than one line: %q", f.Fields[0].Description)
	}
}

func TestFilterSaysWhatIsWrong(t *testing.T) {
	const comparable = `the fields are product_id, on_hand, reserved, available`
	const should = `it must be a filter by AIP-160: comparisons of fields with names, numbers or texts in quotes, joined by AND and OR`
	for filter, want := range map[string]string{
		`state = LOST`:                      `at column 9: state is compared by = != with one of PLACED, CONFIRMED, CANCELLING, CANCELLED, REJECTED`,
		`state > LOST`:                      `at column 1: state is compared by = != with one of PLACED, CONFIRMED, CANCELLING, CANCELLED, REJECTED`,
		`state`:                             `at column 1: state is compared by = != with one of PLACED, CONFIRMED, CANCELLING, CANCELLED, REJECTED`,
		`total > "5"`:                       `at column 9: total is compared by = != < <= > >= with a whole number`,
		`create_time > "now"`:               `at column 15: create_time is compared by = != < <= > >= with a time in quotes, such as "2026-01-31T09:30:00Z"`,
		`customer_id = "\u0000"`:            `at column 15: customer_id is not compared with the character U+0000`,
		`size = 5`:                          `at column 1: size is no field that can be compared; ` + comparable,
		`on_hand = 5 AND NOT size.x = 5`:    `at column 21: size.x is no field that can be compared; ` + comparable,
		`on_hand = 5 AND size`:              `at column 17: size is no field that can be compared; ` + comparable,
		`on_hand = 5 OR 7`:                  `at column 16: this is no field that can be compared; ` + comparable,
		`"é" = on_hand`:                     `at column 1: this is no field that can be compared; ` + comparable,
		`  product_id = "é" AND size = 5`:   `at column 24: size is no field that can be compared; ` + comparable,
		`lower(on_hand) = 5`:                `at column 1: this is no field that can be compared; ` + comparable,
		`state = PLACED state = LOST total`: `at column 16: must have AND or OR before this`,
		`state = PLACED)`:                   `at column 15: unexpected trailing token ); ` + should,
		`customer_id = "é" AND total = "5`:  `at column 31: unterminated string; ` + should,
		` state = `:                         `at column 9: something is missing; ` + should,
	} {
		fields := orderList.fields
		if strings.HasSuffix(want, comparable) {
			fields = stockList.fields
		}
		_, err := fields.filter(filter)
		if f := fault.Of(err); f == nil || f.Fields[0].Description != want {
			t.Errorf("%s: got %v, want %s", filter, err, want)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add(`state = CONFIRMED AND NOT customer_id != "c-1" OR (state = PLACED)`)
	f.Add(`-needs_attention OR total.amount_minor <= -5 AND create_time > timestamp("2026-01-31T12:00:00Z")`)
	var columns []string
	for _, field := range orderList.fields {
		columns = append(columns, field.column)
	}
	// Whatever is accepted is made of these alone.
	made := regexp.MustCompile(`^(` + strings.Join(columns, "|") + `|AND|OR|NOT|true|!=|<=|>=|[=<> ()]|\$\d+)*$`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := orderList.fields.filter(text)
		if err != nil {
			return
		}
		if !made.MatchString(c.sql) {
			t.Errorf("%q became %q", text, c.sql)
		}
		if strings.Count(c.sql, "$") != len(c.args) {
			t.Errorf("%q: %q has %d values", text, c.sql, len(c.args))
		}
	})
}
