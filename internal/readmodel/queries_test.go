package readmodel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// newQueries returns queries on a database with every table, all of them empty.
func newQueries(t *testing.T) *Queries {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	createTable[OrderSummary](t, pool, OrderSummaries.Table())
	createTable[OrderDetail](t, pool, OrderDetails.Table())
	createTable[Product](t, pool, Products.Table())
	createTable[StockLevel](t, pool, StockLevels.Table())
	createTable[Payment](t, pool, Payments.Table())
	createTable[TimelineEntry](t, pool, OrderTimeline.Table())
	createTable[DaySales](t, pool, SalesByDay.Table())
	return NewQueries(pool, secretOf(t, "a"))
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// createTable makes the table of a row, as the consumer does.
func createTable[R any](t *testing.T, pool *pgxpool.Pool, table string) {
	t.Helper()
	if schema, _, ok := strings.Cut(table, "."); ok {
		exec(t, pool, "CREATE SCHEMA IF NOT EXISTS "+schema)
	}
	var columns, keys []string
	for f := range reflect.TypeFor[R]().Fields() {
		name, option, _ := strings.Cut(f.Tag.Get("db"), ",")
		kind := map[reflect.Kind]string{reflect.String: "text", reflect.Int64: "bigint", reflect.Bool: "boolean"}[f.Type.Kind()]
		switch {
		case f.Type == reflect.TypeFor[time.Time]():
			kind = "timestamptz"
		case kind == "":
			kind = "jsonb"
		}
		columns = append(columns, name+" "+kind)
		if option == "key" {
			keys = append(keys, name)
		}
	}
	exec(t, pool, fmt.Sprintf("CREATE TABLE %s (%s, PRIMARY KEY (%s))", table, strings.Join(columns, ", "), strings.Join(keys, ", ")))
}

func insert[R any](t *testing.T, q *Queries, table string, rows ...R) {
	t.Helper()
	for _, r := range rows {
		v := reflect.ValueOf(r)
		var params []string
		var args []any
		for i := range v.NumField() {
			params = append(params, fmt.Sprintf("$%d", i+1))
			args = append(args, v.Field(i).Interface())
		}
		exec(t, q.pool, fmt.Sprintf("INSERT INTO %s VALUES (%s)", table, strings.Join(params, ", ")), args...)
	}
}

func summaryOf(id string, minute int, state, customer string) OrderSummary {
	return OrderSummary{OrderID: id, State: state, CustomerID: customer, Currency: "EUR", Total: 100, CreateTime: at(minute), UpdateTime: at(minute)}
}

// orderIDs reads a list page by page; between pages it calls meanwhile.
func orderIDs(t *testing.T, q *Queries, filter string, size int32, meanwhile func(page int)) []string {
	t.Helper()
	var ids []string
	p := Page{Size: size}
	for n := 1; ; n++ {
		orders, next, err := q.ListOrders(t.Context(), filter, p, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range orders {
			ids = append(ids, o.OrderID)
		}
		if next == "" {
			return ids
		}
		if len(orders) != int(size) {
			t.Errorf("page %d of %d orders is not the last", n, len(orders))
		}
		p.Token = next
		meanwhile(n)
	}
}

func TestListOrdersPagesWhileOrdersArrive(t *testing.T) {
	q := newQueries(t)
	var want []string
	for i := range 20 {
		id := fmt.Sprintf("o-%02d", i)
		insert(t, q, OrderSummaries.Table(), summaryOf(id, i/3, "PLACED", "c-1")) // three at a time
		want = append([]string{id}, want...)
	}
	for size := range int32(21) {
		if size == 0 {
			continue
		}
		got := orderIDs(t, q, "", size, func(page int) {
			insert(t, q, OrderSummaries.Table(), summaryOf(fmt.Sprintf("new-%d-%d", size, page), 100*(int(size)+1)+page, "PLACED", "c-2"))
		})
		// Those that came during earlier rounds stand before the twenty; those of this round never show.
		got = slices.DeleteFunc(got, func(id string) bool {
			if strings.HasPrefix(id, fmt.Sprintf("new-%d-", size)) {
				t.Errorf("page size %d: %s came while pages were read and moved them", size, id)
			}
			return strings.HasPrefix(id, "new-")
		})
		equal(t, got, want)
	}
}

func TestListOrdersFilters(t *testing.T) {
	q := newQueries(t)
	insert(t, q, OrderSummaries.Table(),
		summaryOf("1", 1, "PLACED", "c-1"), summaryOf("2", 2, "CONFIRMED", "c-1"), summaryOf("3", 3, "CONFIRMED", "c-2"),
		summaryOf("4", 4, "REJECTED", "c-2"), summaryOf("5", 0, "", ""), // paid for before it was seen to be placed
	)
	for filter, want := range map[string][]string{
		``:                  {"4", "3", "2", "1"},
		`state = CONFIRMED`: {"3", "2"},
		`state = CONFIRMED AND customer_id = "c-1"`: {"2"},
		`customer_id = "c-2" OR state = PLACED`:     {"4", "3", "1"},
		`NOT state = CONFIRMED`:                     {"4", "1"},
		`state != REJECTED AND state != PLACED`:     {"3", "2"},
		`customer_id = "c-9"`:                       nil,
		`customer_id = "' OR true OR state = '"`:    nil,
	} {
		equal(t, orderIDs(t, q, filter, 1, func(int) {}), want)
		equal(t, orderIDs(t, q, filter, 100, func(int) {}), want)
	}
	_, token, err := q.ListOrders(t.Context(), "", Page{Size: 1}, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = q.ListOrders(t.Context(), "state = CONFIRMED", Page{Token: token}, 0)
	refusesToken(t, err)
	_, _, err = q.ListProducts(t.Context(), Page{Token: token}, 0)
	refusesToken(t, err)
	_, _, _, err = q.RunReport(t.Context(), "sales_by_day", Page{Token: token}, 0)
	refusesToken(t, err)
	_, _, err = q.ListOrders(t.Context(), "total = 5", Page{}, 0)
	if f := fault.Of(err); f == nil || f.Fields[0].Path != "filter" {
		t.Errorf("got %v", err)
	}
}

// utc puts the times of a row, which Postgres gives in the machine's zone, into UTC.
func utc[R any](row R) R {
	v := reflect.ValueOf(&row).Elem()
	for i := range v.NumField() {
		if when, ok := v.Field(i).Interface().(time.Time); ok {
			v.Field(i).Set(reflect.ValueOf(when.UTC()))
		}
	}
	return row
}

func TestGetOrder(t *testing.T) {
	q := newQueries(t)
	want := folded(&OrderDetails, placedOrder(), reserved("cup"))
	want.OrderID = "7"
	unseen := folded(&OrderDetails, reserved("cup"))
	unseen.OrderID = "8"
	insert(t, q, OrderDetails.Table(), want, unseen)

	got, err := q.GetOrder(t.Context(), "7", 0)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, utc(got), want)
	if got, err = q.GetOrderByNumber(t.Context(), "7K3M9QXA2TFD", 0); err != nil {
		t.Fatal(err)
	}
	equal(t, utc(got), want)

	_, err = q.GetOrder(t.Context(), "9", 0)
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND)
	_, err = q.GetOrder(t.Context(), "8", 0)
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND)
	_, err = q.GetOrderByNumber(t.Context(), "000000000000", 0)
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND)
	_, err = q.GetOrderByNumber(t.Context(), "", 0) // that of the order not placed yet
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND)
}

func isMissing(t *testing.T, err error, reason typev1.ErrorReason) {
	t.Helper()
	if f := fault.Of(err); f == nil || f.Kind != fault.NotFound || f.Reason != reason {
		t.Errorf("got %v, want %s", err, reason)
	}
}

func TestGetOrderTimeline(t *testing.T) {
	q := newQueries(t)
	var want []TimelineEntry
	for _, e := range history("7", placedOrder(), reserved("cup"), rejectedOrder()) {
		want = append(want, OrderTimeline.Entries(e)...)
	}
	insert(t, q, OrderTimeline.Table(), want[2], want[0], want[1])
	insert(t, q, OrderTimeline.Table(), OrderTimeline.Entries(history("8", placedOrder())[0])...)
	got, err := q.GetOrderTimeline(t.Context(), "7", 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		got[i] = utc(got[i])
	}
	equal(t, got, want)
	_, err = q.GetOrderTimeline(t.Context(), "9", 0)
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND)
}

func TestGetPayment(t *testing.T) {
	q := newQueries(t)
	want := Payment{OrderID: "7", CustomerID: "c-1", State: "AUTHORIZED", Currency: "EUR", Amount: 2500, Revision: 1, CreateTime: at(0), UpdateTime: at(1)}
	insert(t, q, Payments.Table(), want)
	got, err := q.GetPayment(t.Context(), "7", 0)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, utc(got), want)
	_, err = q.GetPayment(t.Context(), "8", 0)
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_PAYMENT_NOT_FOUND)
}

func TestProductQueries(t *testing.T) {
	q := newQueries(t)
	var all []Product
	for _, id := range []string{"a", "b", "b.2", "c", "d"} {
		all = append(all, Product{ProductID: id, Name: "Product " + id, Currency: "EUR", Price: 100, CreateTime: at(0), UpdateTime: at(0)})
	}
	insert(t, q, Products.Table(), all...)

	got, err := q.GetProduct(t.Context(), "b.2", 0)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, utc(got), all[2])
	_, err = q.GetProduct(t.Context(), "e", 0)
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_PRODUCT_NOT_FOUND)

	var ids []string
	for p := (Page{Size: 2}); ; {
		products, next, err := q.ListProducts(t.Context(), p, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range products {
			ids = append(ids, p.ProductID)
		}
		if p.Token = next; next == "" {
			break
		}
	}
	equal(t, ids, []string{"a", "b", "b.2", "c", "d"})
}

func TestGetStockLevel(t *testing.T) {
	q := newQueries(t)
	insert(t, q, Products.Table(), Product{ProductID: "both", Name: "Cup"}, Product{ProductID: "unstocked", Name: "Pen"})
	insert(t, q, StockLevels.Table(), StockLevel{"both", 10, 3}, StockLevel{"stock only", 5, 0})
	for id, want := range map[string]StockLevel{
		"both":       {"both", 10, 3},
		"unstocked":  {"unstocked", 0, 0},
		"stock only": {"stock only", 5, 0}, // its product will be seen in a moment
	} {
		got, err := q.GetStockLevel(t.Context(), id, 0)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, got, want)
	}
	_, err := q.GetStockLevel(t.Context(), "none", 0)
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_PRODUCT_NOT_FOUND)
}

func TestRunReport(t *testing.T) {
	q := newQueries(t)
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	insert(t, q, SalesByDay.Table(),
		DaySales{day(2), "USD", 1, 700}, DaySales{day(1), "EUR", 3, 4200}, DaySales{day(2), "EUR", 2, 1000}, DaySales{day(3), "EUR", 1, 0})
	want := [][]Cell{
		{day(1), "EUR", int64(3), Money{"EUR", 4200}},
		{day(2), "EUR", int64(2), Money{"EUR", 1000}},
		{day(2), "USD", int64(1), Money{"USD", 700}},
		{day(3), "EUR", int64(1), Money{"EUR", 0}},
	}
	for _, size := range []int32{1, 2, 3, 4, 5, 0} {
		var got [][]Cell
		for p := (Page{Size: size}); ; {
			_, lines, next, err := q.RunReport(t.Context(), "sales_by_day", p, 0)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, lines...)
			if p.Token = next; next == "" {
				break
			}
		}
		equal(t, got, want)
	}

	reports := q.ListReports()
	equal(t, len(reports), 1)
	equal(t, reports[0].Name, "sales_by_day")
	var columns []string
	for _, c := range reports[0].Columns {
		columns = append(columns, fmt.Sprint(c.Name, " ", c.Type))
	}
	equal(t, columns, []string{
		fmt.Sprint("day ", DateColumn), fmt.Sprint("currency ", StringColumn), fmt.Sprint("orders ", Int64Column), fmt.Sprint("revenue ", MoneyColumn),
	})

	_, _, _, err := q.RunReport(t.Context(), "no_such_report", Page{}, 0)
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_REPORT_NOT_FOUND)
	token, err := q.sealToken(listing{"report", "sales_by_day"}, []json.RawMessage{json.RawMessage(`"2026-01-01T00:00:00Z"`)})
	if err != nil {
		t.Fatal(err)
	}
	_, _, _, err = q.RunReport(t.Context(), "sales_by_day", Page{Token: token}, 0) // of a version with one key
	refusesToken(t, err)
}

func TestPostgresErrors(t *testing.T) {
	config, err := pgxpool.ParseConfig(pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.RuntimeParams["statement_timeout"] = "10"
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	q := NewQueries(pool, secretOf(t, "a"))
	if _, err = q.GetOrder(t.Context(), "7", 0); fault.Of(err) == nil || fault.Of(err).Kind != fault.Unavailable {
		t.Errorf("without tables: got %v", err)
	}
	if _, err = many[string](t.Context(), q, "SELECT pg_sleep(60)"); fault.Of(err) == nil || fault.Of(err).Kind != fault.DeadlineExceeded {
		t.Errorf("after the statement timeout: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = q.GetOrder(ctx, "7", 0); !errors.Is(err, context.Canceled) {
		t.Errorf("with a cancelled context: got %v", err)
	}
}
