package readmodel

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// soldOnce is a random order and what became of it.
func soldOnce(r *rand.Rand, id string) []consumer.Event {
	currency := []string{"EUR", "USD"}[r.IntN(2)]
	placed := &orderevent.OrderPlaced{OrderId: id, CustomerId: fmt.Sprintf("c-%d", r.IntN(7)), Total: &typev1.Money{CurrencyCode: currency}}
	for _, product := range r.Perm(5)[:1+r.IntN(3)] {
		l := &orderevent.OrderLine{
			ProductId: fmt.Sprintf("p-%d", product), Quantity: 1 + r.Int64N(5),
			UnitPrice: &typev1.Money{CurrencyCode: currency, AmountMinor: r.Int64N(1000)},
		}
		placed.Lines = append(placed.Lines, l)
		placed.Total.AmountMinor += l.GetQuantity() * l.GetUnitPrice().GetAmountMinor()
	}
	cancel := []proto.Message{&orderevent.OrderCancellationRequested{}, &orderevent.OrderCancelled{}}
	then := [][]proto.Message{
		{}, {&orderevent.OrderConfirmed{}}, {rejectedOrder()}, cancel, append([]proto.Message{&orderevent.OrderConfirmed{}}, cancel...), cancel[:1],
	}[r.IntN(6)]
	events := history(id, append([]proto.Message{placed}, then...)...)
	if r.IntN(4) == 0 { // seen before the order is
		events = append(history(id, &paymentevent.PaymentVoided{}), events...)
	}
	for i := range events {
		events[i].OccurredAt = events[i].OccurredAt.AddDate(0, 0, r.IntN(4))
	}
	return events
}

// sums adds up a whole log, in the plainest way: an order counts until it is rejected or cancelled.
func (w *world) sums() map[string]map[string][]int64 {
	w.t.Helper()
	type order struct {
		*orderevent.OrderPlaced
		day  string
		dead bool
	}
	orders := map[string]*order{}
	for _, stored := range w.log.Events() {
		e, err := w.log.Decode(stored)
		if err != nil {
			w.t.Fatal(err)
		}
		switch m := e.Messages[0].(type) {
		case *orderevent.OrderPlaced:
			orders[e.Stream] = &order{OrderPlaced: m, day: e.Meta.OccurredAt.UTC().Format(time.DateOnly)}
		case *orderevent.OrderRejected, *orderevent.OrderCancelled:
			orders[e.Stream].dead = true
		}
	}
	sums := map[string]map[string][]int64{"sales_by_day": {}, "customer_totals": {}, "product_sales": {}}
	add := func(report, key string, numbers ...int64) {
		have, ok := sums[report][key]
		if !ok {
			sums[report][key] = numbers
			return
		}
		for i, n := range numbers {
			have[i] += n
		}
	}
	for _, o := range orders {
		if o.dead {
			continue
		}
		currency, total := o.GetTotal().GetCurrencyCode(), o.GetTotal().GetAmountMinor()
		add("sales_by_day", o.day+" "+currency, 1, total)
		add("customer_totals", o.GetCustomerId()+" "+currency, 1, total)
		for _, l := range o.GetLines() {
			add("product_sales", l.GetProductId()+" "+currency, 1, l.GetQuantity(), l.GetQuantity()*l.GetUnitPrice().GetAmountMinor())
		}
	}
	return sums
}

// report reads a report: its numbers by its key, and its keys in the order in which they come.
func (w *world) report(name string, p Page, after eventlog.Position) (map[string][]int64, []string) {
	w.t.Helper()
	lines, keys := map[string][]int64{}, []string{}
	for {
		_, rows, next, err := w.RunReport(w.t.Context(), name, p, after)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, row := range rows {
			var key []string
			var numbers []int64
			for _, c := range row {
				switch c := c.(type) {
				case string:
					key = append(key, c)
				case time.Time:
					key = append(key, c.Format(time.DateOnly))
				case int64:
					numbers = append(numbers, c)
				case Money:
					numbers = append(numbers, c.Amount)
				}
			}
			k := strings.Join(key, " ")
			if _, twice := lines[k]; twice {
				w.t.Errorf("%s has %s twice", name, k)
			}
			lines[k], keys = numbers, append(keys, k)
		}
		if p.Token = next; next == "" {
			return lines, keys
		}
	}
}

// Whatever happens to orders, and in whatever order it is heard of, every report is what the whole log adds up to: while
// orders come and go, and at the end.
func TestReportsAreTheSumOfTheLog(t *testing.T) {
	w := newWorld(t)
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	var waiting [][]consumer.Event
	for i := range 200 {
		waiting = append(waiting, soldOnce(r, fmt.Sprint("o-", i)))
	}
	for n := 0; len(waiting) > 0; n++ {
		i := r.IntN(min(len(waiting), 20))
		token := w.append(waiting[i][0])
		if waiting[i] = waiting[i][1:]; len(waiting[i]) == 0 {
			waiting = slices.Delete(waiting, i, i+1)
		}
		if n%100 != 0 && len(waiting) > 0 {
			continue
		}
		for name, want := range w.sums() {
			got, keys := w.report(name, Page{Size: int32(1 + r.IntN(10))}, token)
			equal(t, got, want)
			if !slices.IsSorted(keys) {
				t.Errorf("%s is not in the order of its key: %v", name, keys)
			}
		}
	}
}

func TestRunReportFilters(t *testing.T) {
	w := newWorld(t)
	var token eventlog.Position
	for i, customer := range []string{"c-1", "c-2", "c-1", "c-3"} {
		placed := placedOrder()
		placed.CustomerId, placed.Total = customer, &typev1.Money{CurrencyCode: []string{"EUR", "USD"}[i/3], AmountMinor: int64(100 * (i + 1))}
		e := history(fmt.Sprint(i), placed)[0]
		e.OccurredAt = noon.AddDate(0, 0, i)
		token = w.append(e)
	}
	for _, c := range []struct{ report, filter, want string }{
		{"customer_totals", ``, "c-1 EUR, c-2 EUR, c-3 USD"},
		{"customer_totals", `customer_id = "c-2"`, "c-2 EUR"},
		{"customer_totals", `orders > 1 OR currency = "USD"`, "c-1 EUR, c-3 USD"},
		{"customer_totals", `revenue <= 200`, "c-2 EUR"},
		{"sales_by_day", `day >= "2026-02-01" AND day < "2026-02-03"`, "2026-02-01 EUR, 2026-02-02 EUR"},
		{"product_sales", `units = 8 AND product_id != "pen"`, "cup EUR"},
	} {
		_, keys := w.report(c.report, Page{Filter: c.filter, Size: 1}, token)
		if got := strings.Join(keys, ", "); got != c.want {
			t.Errorf("%s where %s: got %s, want %s", c.report, c.filter, got, c.want)
		}
	}
	for _, filter := range []string{`day > "2026-02-01T00:00:00Z"`, `day > 5`, `currency = EUR`, `revenue = "5"`, `_contributions = 1`, `state = PLACED`} {
		_, _, _, err := w.RunReport(t.Context(), "sales_by_day", Page{Filter: filter}, token)
		refuses(t, err, "filter", filter)
	}
	_, _, next, err := w.RunReport(t.Context(), "customer_totals", Page{Size: 1}, token)
	if err != nil {
		t.Fatal(err)
	}
	_, _, _, err = w.RunReport(t.Context(), "customer_totals", Page{Size: 1, Token: next, Filter: `orders > 0`}, token)
	refusesToken(t, err)
}
