package readmodel

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	catalogevent "github.com/purserhq/purser/proto/purser/catalog/event/v1"
	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// pages reads a list to its end. Before each page it calls turn.
func pages[R any](t *testing.T, read func(context.Context, Page, eventlog.Position) ([]R, string, error), p Page, after eventlog.Position, turn func()) []R {
	t.Helper()
	var all []R
	for {
		turn()
		rows, next, err := read(t.Context(), p, after)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rows...)
		if next == "" {
			return all
		}
		p.Token = next
	}
}

// oneOfMany is order number i of many: of every state, some at the same minute, some of the same total.
func oneOfMany(i int) []consumer.Event {
	placed := placedOrder()
	placed.CustomerId, placed.Total = fmt.Sprintf("c-%03d", i%100), eur(int64(i%97))
	placed.Priority = typev1.Priority(1 + i%3)
	then := [][]proto.Message{
		{}, {&orderevent.OrderConfirmed{}}, {rejectedOrder()}, {reserved("cup"), reserved("pen")}, {requestedPayment()},
	}[i%5]
	if i%50 == 0 {
		then = []proto.Message{&fulfillmentevent.StepRefused{Step: fulfillmentevent.Step_STEP_RESERVE_STOCK, ProductId: "cup", Reason: "X"}}
	}
	events := history(fmt.Sprintf("o-%06d", i), append([]proto.Message{placed}, then...)...)
	for n := range events {
		events[n].OccurredAt = at(i / 3)
	}
	return events
}

// Paging shows every order that was there at the start exactly once, whatever it is ordered by and whatever is added
// meanwhile, and the last page costs what the first does.
func TestPagingThroughManyOrders(t *testing.T) {
	w := newWorld(t)
	const many = 1_000
	copies, size := 4, int32(250)
	if os.Getenv("PURSER_TEST_SOAK") != "" {
		copies, size = 99, 1000
	}
	var token eventlog.Position
	for i := range many {
		token = w.append(oneOfMany(i)...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if _, err := w.reader.Await(ctx, &OrderSummaries, "", token); err != nil {
		t.Fatal(err)
	}
	there := w.copied(t, copies)
	equal(t, len(there), (copies+1)*many)

	added := many
	for _, orderBy := range []string{"", "create_time", "total desc", "customer_id, total desc", "state,create_time desc,total"} {
		t.Run("by "+orderBy, func(t *testing.T) {
			orders := pages(t, w.ListOrders, Page{OrderBy: orderBy, Size: size}, 0, func() {
				w.append(oneOfMany(added)...) // and not waited for
				added++
			})
			var ids []string
			for _, o := range orders {
				if o.OrderID < fmt.Sprintf("o-%06d", many) {
					ids = append(ids, o.OrderID)
				}
			}
			slices.Sort(ids)
			equal(t, ids, there)
		})
	}

	for _, c := range []Page{
		{}, {OrderBy: "create_time"}, {OrderBy: "update_time desc"}, {OrderBy: "total"}, {OrderBy: "total.amount_minor desc"},
		{OrderBy: "customer_id"}, {OrderBy: "state desc"}, {OrderBy: "payment_state"}, {OrderBy: "fulfillment_state"}, {OrderBy: "priority"},
		{Filter: `state = CONFIRMED`}, {Filter: `customer_id = "c-007"`}, {Filter: `payment_state = REQUESTED`}, {Filter: `needs_attention`},
		{Filter: `fulfillment_state = RESERVED`}, {Filter: `priority = CRITICAL`}, {Filter: `total = 5`}, {Filter: `total < 3`, OrderBy: "total"},
		{Filter: fmt.Sprintf("create_time < %q", at(many/30).Format(time.RFC3339))},
	} {
		t.Run(fmt.Sprintf("the last page costs what the first does: %q by %q", c.Filter, c.OrderBy), func(t *testing.T) {
			c.Size = 10
			first := w.costs(t, c)
			pages := Page{Filter: c.Filter, OrderBy: c.OrderBy, Size: int32((copies + 1) * many / 200)}
			for last := ""; ; last = pages.Token {
				_, next, err := w.ListOrders(t.Context(), pages, 0)
				if err != nil {
					t.Fatal(err)
				}
				if next == "" { // a token is bound to the query, not to the size of the page
					c.Token = last
					break
				}
				pages.Token = next
			}
			if last := w.costs(t, c); last > 2*first+30 {
				t.Errorf("the last page reads %d blocks, the first %d", last, first)
			}
		})
	}
}

// copied adds so many copies of each order's row, by ids that sort behind its own, and returns the ids of all.
func (w *world) copied(t *testing.T, copies int) []string {
	t.Helper()
	columns := consumer.Columns[OrderSummary]() + `, "_revisions", "_partition"`
	copied := strings.Replace(columns, `"order_id"`, "order_id || '.' || n", 1)
	for _, sql := range []string{
		fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM %[1]s, generate_series(1, %[4]d) AS n", w.table(&OrderSummaries), columns, copied, copies),
		"ANALYZE " + w.table(&OrderSummaries),
	} {
		if _, err := w.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	ids, err := collect(t.Context(), w.Queries, pgx.RowTo[string], "SELECT order_id FROM "+w.table(&OrderSummaries))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ids)
	return ids
}

// costs reads a page of ten orders, and returns how many blocks Postgres looks at for that: by an index, and far fewer
// than it would take to sort what matches.
func (w *world) costs(t *testing.T, p Page) int {
	t.Helper()
	if _, _, err := w.ListOrders(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	sql, args := w.asked.statement()
	type node struct {
		NodeType string `json:"Node Type"`
		Hit      int    `json:"Shared Hit Blocks"`
		Read     int    `json:"Shared Read Blocks"`
		Plans    []node `json:"Plans"`
	}
	var text string
	if err := w.pool.QueryRow(t.Context(), "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+sql, args...).Scan(&text); err != nil {
		t.Fatal(err)
	}
	var plans []struct{ Plan node }
	if err := json.Unmarshal([]byte(text), &plans); err != nil {
		t.Fatal(err)
	}
	for n := plans[0].Plan; ; n = n.Plans[0] {
		if n.NodeType == "Seq Scan" {
			t.Errorf("%s\n%s", sql, text)
		}
		if len(n.Plans) > 0 {
			continue
		}
		blocks := plans[0].Plan.Hit + plans[0].Plan.Read
		if blocks > 100 {
			t.Errorf("%d blocks: %s\n%s", blocks, sql, text)
		}
		return blocks
	}
}

func TestListOrdersInOrder(t *testing.T) {
	w := newWorld(t)
	var token eventlog.Position
	for i, o := range []struct {
		id, customer string
		total        int64
		then         proto.Message
	}{
		{"1", "b", 300, &orderevent.OrderConfirmed{}}, {"2", "a", 100, rejectedOrder()}, {"3", "b", 200, &orderevent.OrderConfirmed{}}, {"4", "a", 100, rejectedOrder()},
	} {
		placed := placedOrder()
		placed.CustomerId, placed.Total = o.customer, eur(o.total)
		events := history(o.id, placed, o.then)
		for n := range events {
			events[n].OccurredAt = at(i)
		}
		token = w.append(events...)
	}
	for orderBy, want := range map[string]string{
		"":                               "4321",
		" ":                              "4321",
		"create_time":                    "1234",
		"create_time desc":               "4321",
		"total":                          "2431",
		"total desc":                     "1342",
		"total.amount_minor asc":         "2431",
		"customer_id":                    "2413",
		"customer_id desc":               "3142",
		"customer_id, total":             "2431",
		"customer_id desc, total":        "3124",
		"customer_id,create_time desc":   "4231",
		"state desc, total desc":         "4213",
		"state, total desc, create_time": "1324",
	} {
		for _, size := range []int32{1, 2, 3, 100} {
			var got string
			for _, o := range pages(t, w.ListOrders, Page{OrderBy: orderBy, Size: size}, token, func() {}) {
				got += o.OrderID
			}
			if got != want {
				t.Errorf("by %q, %d a page: got %s, want %s", orderBy, size, got, want)
			}
		}
	}
	_, next, err := w.ListOrders(t.Context(), Page{OrderBy: "total", Size: 1}, token)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = w.ListOrders(t.Context(), Page{Size: 1, Token: next}, token)
	refusesToken(t, err)
	// Made by a version that orders by something else.
	stale, err := w.sealToken(listing{"orders", "", "total", ""}, []any{"x", 1})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = w.ListOrders(t.Context(), Page{OrderBy: "total", Token: stale}, token)
	refusesToken(t, err)
}

func TestOrderByRefuses(t *testing.T) {
	for _, orderBy := range []string{
		"lines", "order_number", "needs_attention", "total.currency_code", "total.amount", "Total", "total up", "total desc asc", "total,", ",",
		"total, total desc", "total, total.amount_minor", "total; DROP TABLE orders", `"total"`, "total DESC", "create_time desc, , state", "\x00",
	} {
		t.Run(orderBy, func(t *testing.T) {
			got, err := orderList.fields.order(orderBy, orderList.order)
			refuses(t, err, "order_by", got)
		})
	}
}

func TestListProductsSearches(t *testing.T) {
	w := newWorld(t)
	for _, p := range []struct {
		id, name, description string
		price                 int64
	}{
		{"p1", "Enamel mug", "Holds half a litre of tea", 1450},
		{"p2", "Tin mug", "For the road; doesn't break", 900},
		{"p3", "Tea-pot", "Of ENAMEL, with a lid", 3900},
		{"p4", "Café crème", "Ground coffee", 700},
	} {
		w.append(history(p.id, &catalogevent.ProductCreated{Name: p.name, Description: p.description, Price: eur(p.price)})...)
	}
	token := w.append(history("p2", &catalogevent.ProductDiscontinued{})...)
	for _, c := range []struct {
		page Page
		want string
	}{
		{Page{}, "p1 p2 p3 p4"},
		{Page{Search: "  "}, "p1 p2 p3 p4"},
		{Page{Search: "mug"}, "p1 p2"},
		{Page{Search: "MU"}, "p1 p2"},
		{Page{Search: "mug ena"}, "p1"},
		{Page{Search: "ena mug"}, ""}, // only the last word may be a beginning
		{Page{Search: "enamel"}, "p1 p3"},
		{Page{Search: "tea"}, "p1 p3"},
		{Page{Search: "tea-po"}, "p3"},
		{Page{Search: "doesn't"}, "p2"},
		{Page{Search: "café"}, "p4"},
		{Page{Search: "spoon"}, ""},
		{Page{Search: "' | 'mug"}, "p1 p2"}, // no operators: what is no word is passed over
		{Page{Search: `mug:* & !\`}, "p1 p2"},
		{Page{Search: "!!!"}, ""},
		{Page{Search: "mug", Filter: `NOT discontinued`}, "p1"},
		{Page{Search: "enamel", OrderBy: "price desc"}, "p3 p1"},
		{Page{OrderBy: "name"}, "p4 p1 p3 p2"},
		{Page{Filter: `price < 1000 OR name = "Tea-pot"`, OrderBy: "price desc"}, "p3 p2 p4"},
		{Page{Filter: `price.currency_code = "EUR" AND create_time < "2026-02-01T00:00:00Z" AND discontinued = true`}, "p2"},
		{Page{Filter: `product_id = "p3"`}, "p3"},
	} {
		for _, size := range []int32{1, 100} {
			c.page.Size = size
			var ids []string
			for _, p := range pages(t, w.ListProducts, c.page, token, func() {}) {
				ids = append(ids, p.ProductID)
			}
			if got := strings.Join(ids, " "); got != c.want {
				t.Errorf("%+v: got %q, want %q", c.page, got, c.want)
			}
		}
	}
	_, next, err := w.ListProducts(t.Context(), Page{Search: "mug", Size: 1}, token)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = w.ListProducts(t.Context(), Page{Search: "tea", Size: 1, Token: next}, token)
	refusesToken(t, err)

	var index bool
	if err := w.pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_indexes WHERE quote_ident(schemaname) || '.' || quote_ident(tablename) = replace($1, '"', '')
		AND indexdef LIKE '%USING gin%')`, w.table(&Products)).Scan(&index); err != nil || !index {
		t.Errorf("no index to search by: %v", err)
	}
}

func TestListStockLevels(t *testing.T) {
	w := newWorld(t)
	var token eventlog.Position
	for id, have := range map[string][2]int64{"p1": {10, 0}, "p2": {10, 8}, "p3": {3, 3}, "p4": {7, 1}} {
		token = w.append(history(id, &stockevent.StockReceived{Quantity: have[0]}, &stockevent.StockReserved{OrderId: "7", Quantity: have[1]})...)
	}
	for _, c := range []struct {
		page Page
		want string
	}{
		{Page{}, "p1 p2 p3 p4"},
		{Page{Filter: "available < 5"}, "p2 p3"},
		{Page{Filter: "available < 5", OrderBy: "available"}, "p3 p2"},
		{Page{Filter: "reserved > 0 AND on_hand >= 7"}, "p2 p4"},
		{Page{Filter: `product_id = "p4"`}, "p4"},
		{Page{OrderBy: "on_hand desc"}, "p2 p1 p4 p3"},
		{Page{OrderBy: "on_hand desc, product_id"}, "p1 p2 p4 p3"},
		{Page{OrderBy: "product_id desc"}, "p4 p3 p2 p1"},
	} {
		for _, size := range []int32{1, 3, 100} {
			c.page.Size = size
			var ids []string
			for _, l := range pages(t, w.ListStockLevels, c.page, token, func() {}) {
				equal(t, l.Available, l.OnHand-l.Reserved)
				ids = append(ids, l.ProductID)
			}
			if got := strings.Join(ids, " "); got != c.want {
				t.Errorf("%+v: got %q, want %q", c.page, got, c.want)
			}
		}
	}
}

// Operators find what needs a person, and what takes too long: what has nothing to wait for is never overdue.
func TestListFulfillments(t *testing.T) {
	w := newWorld(t)
	refused := &fulfillmentevent.StepRefused{Step: fulfillmentevent.Step_STEP_RESERVE_STOCK, ProductId: "cup", Reason: "X"}
	for i, then := range [][]proto.Message{
		{},                            // waits since 0
		{refused},                     // waits since 1, for its pen
		{refused, refusedLine("pen")}, // waits since 2, to release its cup
		{&orderevent.OrderRejected{}, releasedLine("cup"), releasedLine("pen")}, // is done
		{&orderevent.OrderCancellationRequested{}},                              // waits since 4
	} {
		placed := placedOrder()
		placed.Priority = typev1.Priority(1 + i%2)
		events := history(fmt.Sprint(i), append([]proto.Message{placed}, then...)...)
		for n := range events {
			events[n].OccurredAt = at(i)
		}
		w.append(events...)
	}
	token := w.append(history("9", &paymentevent.PaymentVoided{})...) // not placed
	for _, c := range []struct{ filter, orderBy, want string }{
		{"", "", "43210"},
		{"", "create_time", "01234"},
		{"", "waiting_since", "01243"},
		{"", "update_time desc", "43210"},
		{fmt.Sprintf("waiting_since < %q", at(3).Format(time.RFC3339)), "waiting_since", "012"},
		{fmt.Sprintf("waiting_since >= %q", at(3).Format(time.RFC3339)), "", "43"},
		{"goal = FULFIL", "", "10"},
		{"goal = REJECT", "", "32"},
		{"goal = CANCEL OR needs_attention", "", "41"},
		{"fulfillment_state = RELEASED", "", "3"},
		{"priority = EXPEDITED", "", "31"},
		{`customer_id = "c-1" AND NOT needs_attention`, "create_time", "0234"},
		{fmt.Sprintf("update_time > %q", at(2).Format(time.RFC3339)), "", "43"},
	} {
		for _, size := range []int32{1, 2, 100} {
			var got string
			for _, f := range pages(t, w.ListFulfillments, Page{Filter: c.filter, OrderBy: c.orderBy, Size: size}, token, func() {}) {
				got += f.OrderID
			}
			if got != c.want {
				t.Errorf("%q by %q, %d a page: got %s, want %s", c.filter, c.orderBy, size, got, c.want)
			}
		}
	}
	f, err := w.GetFulfillment(t.Context(), "0", token)
	if err != nil || len(f.ToDo) != 2 || !f.WaitingSince.Equal(at(0)) {
		t.Errorf("got %+v, %v", f, err)
	}
	for _, id := range []string{"9", "nothing"} {
		if _, err := w.GetFulfillment(t.Context(), id, token); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND) {
			t.Errorf("%s: %v", id, err)
		}
	}
}
