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
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/domain/fulfillment"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	catalogevent "github.com/purserhq/purser/proto/purser/catalog/event/v1"
	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// orderAt is an order that was placed at a minute, and what happened to it then.
func orderAt(id string, minute int, customer string, then ...proto.Message) []consumer.Event {
	placed := placedOrder()
	placed.CustomerId = customer
	events := history(id, append([]proto.Message{placed}, then...)...)
	for i := range events {
		events[i].OccurredAt = at(minute)
	}
	return events
}

// orderIDs reads a list page by page; between pages it calls meanwhile, and waits for what that appends.
func orderIDs(t *testing.T, q *Queries, filter string, size int32, after eventlog.Position, meanwhile func(page int) eventlog.Position) []string {
	t.Helper()
	var ids []string
	p := Page{Filter: filter, Size: size}
	for n := 1; ; n++ {
		orders, next, err := q.ListOrders(t.Context(), p, after)
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
		after = meanwhile(n)
	}
}

func TestListOrdersPagesWhileOrdersArrive(t *testing.T) {
	w := newWorld(t)
	var want []string
	var token eventlog.Position
	for i := range 20 {
		id := fmt.Sprintf("o-%02d", i)
		token = w.append(orderAt(id, i/3, "c-1")...) // three at a time
		want = append([]string{id}, want...)
	}
	for _, size := range []int32{1, 2, 3, 4, 7, 19, 20, 21} {
		got := orderIDs(t, w.Queries, "", size, token, func(page int) eventlog.Position {
			token = w.append(orderAt(fmt.Sprintf("new-%d-%d", size, page), 100*(int(size)+1)+page, "c-2")...)
			return token
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
	w := newWorld(t)
	w.append(orderAt("1", 1, "c-1")...)
	w.append(orderAt("2", 2, "c-1", &orderevent.OrderConfirmed{})...)
	w.append(orderAt("3", 3, "c-2", &orderevent.OrderConfirmed{})...)
	w.append(orderAt("4", 4, "c-2", rejectedOrder())...)
	token := w.append(history("5", &paymentevent.PaymentVoided{})...) // voided before it was seen to be placed
	same := func(int) eventlog.Position { return token }
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
		equal(t, orderIDs(t, w.Queries, filter, 1, token, same), want)
		equal(t, orderIDs(t, w.Queries, filter, 100, token, same), want)
	}
	_, page, err := w.ListOrders(t.Context(), Page{Size: 1}, token)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = w.ListOrders(t.Context(), Page{Filter: "state = CONFIRMED", Token: page}, 0)
	refusesToken(t, err)
	_, _, err = w.ListProducts(t.Context(), Page{Token: page}, 0)
	refusesToken(t, err)
	_, _, _, err = w.RunReport(t.Context(), "sales_by_day", Page{Token: page}, 0)
	refusesToken(t, err)
	_, _, err = w.ListOrders(t.Context(), Page{Filter: "lines = 5"}, 0)
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
	w := newWorld(t)
	want := folded(&OrderDetails, placedOrder(), reserved("cup"))
	want.OrderID, want.Fulfillment = "7", fulfillment.State{}
	w.append(history("7", placedOrder(), reserved("cup"))...)
	token := w.append(history("8", reserved("cup"))...) // not seen to be placed yet

	got, err := w.GetOrder(t.Context(), "7", token)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, utc(got), want)
	if got, err = w.GetOrderByNumber(t.Context(), "7K3M9QXA2TFD", token); err != nil {
		t.Fatal(err)
	}
	equal(t, utc(got), want)

	_, err = w.GetOrder(t.Context(), "9", token)
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND)
	_, err = w.GetOrder(t.Context(), "8", token)
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND)
	_, err = w.GetOrderByNumber(t.Context(), "000000000000", token)
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND)
	_, err = w.GetOrderByNumber(t.Context(), "", token) // that of the order not placed yet
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND)
}

func isMissing(t *testing.T, err error, reason typev1.ErrorReason) {
	t.Helper()
	if f := fault.Of(err); f == nil || f.Kind != fault.NotFound || f.Reason != reason {
		t.Errorf("got %v, want %s", err, reason)
	}
}

func TestGetOrderTimeline(t *testing.T) {
	w := newWorld(t)
	var want []TimelineEntry
	var token eventlog.Position
	for _, e := range history("7", placedOrder(), reserved("cup"), rejectedOrder()) {
		e.Position = w.append(e)
		stored := w.log.Events()
		e.ID = stored[len(stored)-1].ID
		want = append(want, OrderTimeline.Entries(e)...)
		token = w.append(history("8-"+e.Type, placedOrder())...) // in between
	}
	got, err := w.GetOrderTimeline(t.Context(), "7", token)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		got[i] = utc(got[i])
	}
	equal(t, got, want)
	_, err = w.GetOrderTimeline(t.Context(), "9", token)
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND)
}

func TestGetPayment(t *testing.T) {
	w := newWorld(t)
	token := w.append(history("7", &paymentevent.AuthorizationRequested{CustomerId: "c-1", Amount: eur(2500)}, &paymentevent.PaymentAuthorized{})...)
	got, err := w.GetPayment(t.Context(), "7", token)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, utc(got), Payment{
		OrderID: "7", CustomerID: "c-1", State: "AUTHORIZED", Currency: "EUR", Amount: 2500, Revision: 1, CreateTime: at(0), UpdateTime: at(1),
	})
	_, err = w.GetPayment(t.Context(), "8", token)
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_PAYMENT_NOT_FOUND)
}

func TestProductQueries(t *testing.T) {
	w := newWorld(t)
	var token eventlog.Position
	for _, id := range []string{"d", "b.2", "a", "c", "b"} {
		token = w.append(history(id, &catalogevent.ProductCreated{Name: "Product " + id, Price: eur(100)})...)
	}
	got, err := w.GetProduct(t.Context(), "b.2", token)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, utc(got), Product{ProductID: "b.2", Name: "Product b.2", Currency: "EUR", Price: 100, CreateTime: at(0), UpdateTime: at(0)})
	_, err = w.GetProduct(t.Context(), "e", token)
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_PRODUCT_NOT_FOUND)

	var ids []string
	for p := (Page{Size: 2}); ; {
		products, next, err := w.ListProducts(t.Context(), p, token)
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
	w := newWorld(t)
	created, stocked := &catalogevent.ProductCreated{Name: "Cup", Price: eur(100)}, &stockevent.StockReceived{Quantity: 10}
	w.append(history("both", created, stocked, &stockevent.StockReserved{OrderId: "7", Quantity: 3})...)
	w.append(history("unstocked", created)...)
	token := w.append(history("stock-only", stocked)...)
	for id, want := range map[string]StockLevel{
		"both":       {"both", 10, 3, 7},
		"unstocked":  {"unstocked", 0, 0, 0},
		"stock-only": {"stock-only", 10, 0, 10}, // its product will be seen in a moment
	} {
		got, err := w.GetStockLevel(t.Context(), id, token)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, got, want)
	}
	_, err := w.GetStockLevel(t.Context(), "none", token)
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_PRODUCT_NOT_FOUND)
}

func TestRunReport(t *testing.T) {
	w := newWorld(t)
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	var token eventlog.Position
	for i, sold := range []struct {
		day      int
		currency string
		total    int64
	}{{2, "USD", 700}, {1, "EUR", 200}, {3, "EUR", 0}, {1, "EUR", 4000}, {2, "EUR", 1000}} {
		placed := placedOrder()
		placed.Total = &typev1.Money{CurrencyCode: sold.currency, AmountMinor: sold.total}
		e := history(fmt.Sprint(i), placed)[0]
		e.OccurredAt = day(sold.day).Add(23 * time.Hour)
		token = w.append(e)
	}
	want := [][]Cell{
		{day(1), "EUR", int64(2), Money{"EUR", 4200}},
		{day(2), "EUR", int64(1), Money{"EUR", 1000}},
		{day(2), "USD", int64(1), Money{"USD", 700}},
		{day(3), "EUR", int64(1), Money{"EUR", 0}},
	}
	for _, size := range []int32{1, 2, 3, 4, 5, 0} {
		var got [][]Cell
		for p := (Page{Size: size}); ; {
			_, lines, next, err := w.RunReport(t.Context(), "sales_by_day", p, token)
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
	_, _, _, err := w.RunReport(t.Context(), "no_such_report", Page{}, token)
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_REPORT_NOT_FOUND)
	page, err := w.sealToken(listing{"report", "sales_by_day"}, []json.RawMessage{json.RawMessage(`"2026-01-01T00:00:00Z"`)})
	if err != nil {
		t.Fatal(err)
	}
	_, _, _, err = w.RunReport(t.Context(), "sales_by_day", Page{Token: page}, 0) // of a version with one key
	refusesToken(t, err)
}

func TestListReports(t *testing.T) {
	reports := (&Queries{reports: newCatalogue().reports}).ListReports()
	var names []string
	for _, r := range reports {
		names = append(names, r.Name)
	}
	equal(t, names, []string{"customer_totals", "product_sales", "sales_by_day"})
	var columns []string
	for _, c := range reports[2].Columns {
		columns = append(columns, fmt.Sprint(c.Name, " ", c.Type))
	}
	equal(t, columns, []string{
		fmt.Sprint("day ", DateColumn), fmt.Sprint("currency ", StringColumn), fmt.Sprint("orders ", Int64Column), fmt.Sprint("revenue ", MoneyColumn),
	})
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
