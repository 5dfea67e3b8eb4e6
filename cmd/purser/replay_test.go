package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/eventlog"
	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const secretName = "Ada Lovelace"

// happened is an order's history: placed by a clerk, who is called the cause of nothing, and confirmed by the saga.
func (s *streamStore) happened(id string) {
	s.t.Helper()
	eur := &typev1.Money{CurrencyCode: "EUR", AmountMinor: 2900}
	next := map[string]eventlog.Revision{}
	var cause string
	for i, m := range []proto.Message{
		&orderevent.OrderPlaced{
			OrderId: id, OrderNumber: "4T7Q9M2KXW3E", CustomerId: "c-1", Total: eur, PaymentMethod: proto.String(secretName),
			Lines:           []*orderevent.OrderLine{{ProductId: "mug", Name: "Mug", Quantity: 2, UnitPrice: &typev1.Money{CurrencyCode: "EUR", AmountMinor: 1450}}},
			DeliveryAddress: &typev1.Address{Recipient: proto.String(secretName), PostalCode: "3011 AA", CountryCode: "NL"},
		},
		&fulfillmentevent.LineReserved{OrderId: id, ProductId: "mug", Quantity: 2},
		&paymentevent.AuthorizationRequested{OrderId: id, CustomerId: "c-1", Amount: eur},
		&paymentevent.PaymentAuthorized{OrderId: id},
		&orderevent.OrderConfirmed{OrderId: id},
	} {
		category := string(m.ProtoReflect().Descriptor().ParentFile().Package().Parent().Parent().Name())
		meta := eventlog.Metadata{
			Actor: "saga", CausationID: cause, RequestID: fmt.Sprintf("request-%d", i),
			OccurredAt: time.Date(2026, 1, 31, 12, i, 0, 0, time.UTC),
		}
		if i == 0 {
			meta.Actor = "clerk"
		}
		e := eventlog.NewEvent{ID: uuid.New(), Message: m, Meta: meta}
		ctx, cancel := context.WithTimeout(s.t.Context(), settle)
		_, err := s.log.Append(ctx, eventlog.StreamName(category, id), next[category]-1, []eventlog.NewEvent{e})
		cancel()
		if err != nil {
			s.t.Fatal(err)
		}
		next[category]++
		cause = e.ID.String()
	}
}

// replay runs `purser replay`.
func (s *streamStore) replay(args ...string) (string, error) {
	return runCommand(s.t, append([]string{"replay", "--eventstore-url", s.url}, args...)...)
}

func (s *streamStore) replayed(args ...string) string {
	s.t.Helper()
	out, err := s.replay(args...)
	if err != nil {
		s.t.Fatalf("purser replay %v: %v", args, err)
	}
	return out
}

// without leaves out the positions, which are the only thing that a replay of files tells otherwise.
func without(out string) string {
	var kept []string
	for _, line := range strings.Split(out, "\n") {
		if at := strings.Index(line, "  position "); at == 0 {
			_, line, _ = strings.Cut(line[len("  position "):], "  ")
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "\n")
}

func TestReplayShowsWhatEachEventChanged(t *testing.T) {
	s := newStreamStore(t)
	s.happened("6")
	s.happened("7")
	out := s.replayed("7", "--step")
	for _, want := range []string{
		"order-7@0  OrderPlaced  2026-01-31T12:00:00Z\n", "  actor clerk  request request-0\n",
		`    state: "" -> "PLACED"` + "\n", `    delivery_address.recipient: nothing -> "[personal]"` + "\n", `    total_minor: 0 -> 2900` + "\n",
		"fulfillment-7@0  LineReserved", "  actor saga  because of order-7@0 OrderPlaced\n",
		`    fulfillment_state: "PENDING" -> "RESERVED"` + "\n", "    fulfillment.lines[0].fact: 0 -> 2\n",
		"order-7@1  OrderConfirmed", "  because of payment-7@1 PaymentAuthorized\n", `    state: "PLACED" -> "CONFIRMED"` + "\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, secretName) || strings.Contains(out, "-6") {
		t.Errorf("shows what is personal, or another order's:\n%s", out)
	}
	if out := s.replayed("7", "--step", "--personal"); !strings.Contains(out, `nothing -> "`+secretName+`"`) {
		t.Errorf("no personal data in\n%s", out)
	}

	var line struct {
		Stream, Actor, CausationID string
		Position                   int64
		Changes                    []change
	}
	last := lastLine(s.replayed("7", "--step", "--json"))
	if err := json.Unmarshal([]byte(last), &line); err != nil {
		t.Fatal(err)
	}
	if line.Stream != "order-7" || line.Actor != "saga" || line.CausationID == "" || line.Position == 0 {
		t.Errorf("%s", last)
	}
	for _, c := range line.Changes {
		if c.Path == "state" && string(c.Old) == `"PLACED"` && string(c.New) == `"CONFIRMED"` {
			return
		}
	}
	t.Errorf("no change of the state in %s", last)
}

func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

func TestReplayShowsTheStateInTheEnd(t *testing.T) {
	s := newStreamStore(t)
	s.happened("7")
	for _, args := range [][]string{{"7"}, {"7", "--json"}} {
		out := s.replayed(args...)
		var row map[string]any
		if err := json.Unmarshal([]byte(out), &row); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		if row["state"] != "CONFIRMED" || row["payment_state"] != "AUTHORIZED" || row["order_revision"] != 1.0 || strings.Contains(out, secretName) {
			t.Errorf("%v: %s", args, out)
		}
	}
}

// What each model, report and list has of an order is shown after each event that it reads.
func TestReplayOfEveryFold(t *testing.T) {
	s := newStreamStore(t)
	s.happened("7")
	s.append("product-7", eventlog.NoStream, foreign("ProductCreated", `{"product_id":"7","name":"Mug"}`))
	s.append("stock-7", eventlog.NoStream, foreign("StockReceived", `{"product_id":"7","quantity":"3"}`))
	want := map[string][]string{ // of the states, one after another
		"order_summaries":    {`"state":"PLACED"`, `"fulfillment_state":"RESERVED"`, `"payment_state":"REQUESTED"`, `"payment_state":"AUTHORIZED"`, `"state":"CONFIRMED"`},
		"sales_by_day":       {`[{"day":"2026-01-31T00:00:00Z","currency":"EUR","orders":1,"revenue":2900}]`, "[{", "[{", "[{", "[{"},
		"customer_totals":    {`[{"customer_id":"c-1","currency":"EUR","orders":1,"revenue":2900}]`, "[{", "[{", "[{", "[{"},
		"product_sales":      {`[{"product_id":"mug","currency":"EUR","orders":1,"units":2,"revenue":2900}]`, "[{", "[{", "[{", "[{"},
		"order_details":      {`"state":"PLACED"`, `"RESERVED"`, `"REQUESTED"`, `"AUTHORIZED"`, `"CONFIRMED"`},
		"products":           {`"name":"Mug"`},
		"stock_levels":       {`"on_hand":3`},
		"payments":           {`"REQUESTED"`, `"AUTHORIZED"`},
		"fulfillments":       {`"FULFIL"`, `"AUTHORIZE_PAYMENT"`, `"REQUESTED"`, `"CONFIRM_ORDER"`, `"to_do":[]`},
		"order_timeline":     {"Order placed", "Stock reserved", "Payment requested", "Payment authorized", "Order confirmed"},
		"fulfillment_states": {`"FULFIL"`, `"fact":2`, `"REQUESTED"`, `"AUTHORIZED"`, `"listed":[]`},
		"todo":               {`"step":"RESERVE_STOCK"`, `"step":"AUTHORIZE_PAYMENT"`, `"step":"AUTHORIZE_PAYMENT"`, `"step":"CONFIRM_ORDER"`, "[]"},
	}
	for _, name := range replayNames() {
		if want[name] == nil {
			t.Errorf("%s is not tested", name)
		}
		out := s.replayed("7", "--json", "--fold", name)
		if strings.Contains(out, secretName) {
			t.Errorf("%s shows what is personal: %s", name, out)
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if len(lines) != len(want[name]) {
			t.Errorf("%s: %d states, want %d:\n%s", name, len(lines), len(want[name]), out)
			continue
		}
		for i, line := range lines {
			var shown struct{ State json.RawMessage }
			if err := json.Unmarshal([]byte(line), &shown); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(shown.State), want[name][i]) {
				t.Errorf("%s after event %d: %s, want %s", name, i, shown.State, want[name][i])
			}
		}
	}

	out := s.replayed("7", "--fold", "todo", "--step")
	for _, want := range []string{`    + {"step":"RESERVE_STOCK","product_id":"mug"`, `    - {"step":"RESERVE_STOCK"`, "    (nothing changed)", `    - {"step":"CONFIRM_ORDER"`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out := s.replayed("7", "--fold", "order_timeline", "--step"); strings.Contains(out, "    - ") || strings.Count(out, "    + ") != 5 {
		t.Errorf("a journal only grows:\n%s", out)
	}
}

// Exported streams are replayed as the store's own are: from one file, and from a file for each stream in whatever order,
// where some events are in two of them.
func TestReplayFromFiles(t *testing.T) {
	s := newStreamStore(t)
	s.happened("6")
	s.happened("7")
	dir := t.TempDir()
	export := func(name string, args ...string) string {
		file := filepath.Join(dir, name)
		s.run(append([]string{"export", "--output", file}, args...)...)
		return file
	}
	all, payment := export("all", "--all"), export("payment", "payment-7")
	order, fulfillment := export("order", "order-7"), export("fulfillment", "fulfillment-7")
	nowhere := &streamStore{t: t, url: "esdb://127.0.0.1:1?tls=false"}
	for _, mode := range [][]string{{"7"}, {"7", "--step"}, {"7", "--fold", "todo"}} {
		want := s.replayed(mode...)
		for _, files := range [][]string{{all}, {payment, order, fulfillment}, {fulfillment, all, payment}} {
			args := mode
			for _, f := range files {
				args = append(args, "--from", f)
			}
			if got := nowhere.replayed(args...); without(got) != without(want) {
				t.Errorf("%v prints\n%s\nwant\n%s", args, got, want)
			}
		}
	}
	if out := nowhere.replayed("7", "--step", "--from", all); !strings.Contains(out, "\n  position 1  ") || !strings.Contains(out, "\n  position 5  ") {
		t.Errorf("the events are not numbered:\n%s", out)
	}

	cut := filepath.Join(dir, "cut")
	whole, err := os.ReadFile(all)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	if err := os.WriteFile(cut, bytes.Join(lines[:3], nil), 0o600); err != nil {
		t.Fatal(err)
	}
	other := newStreamStore(t)
	other.happened("7")
	foreign := filepath.Join(dir, "foreign")
	other.run("export", "order-7", "--output", foreign)
	for want, args := range map[string][]string{
		"cut: the file was cut off":    {"7", "--from", cut},
		"no such file":                 {"7", "--from", filepath.Join(dir, "none")},
		"there are no events of order": {"9", "--from", all},
		"not of one event store":       {"7", "--from", all, "--from", foreign},
	} {
		if out, err := nowhere.replay(args...); err == nil || !strings.Contains(err.Error(), want) || out != "" {
			t.Errorf("%v: %q, %v", args, out, err)
		}
	}
}

// A replay shows an event that the services can't get past, and what led there.
func TestReplayOfWhatCannotBeApplied(t *testing.T) {
	s := newStreamStore(t)
	s.happened("7")
	s.append("order-7", 1, foreign("OrderEnchanted", "{}"), foreign("OrderCancelled", "["))
	out, err := s.replay("7", "--step")
	if err == nil || !strings.Contains(err.Error(), "order-7@3") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(out, "order-7@1  OrderConfirmed") || !strings.Contains(out, "(this build does not know it, and passes it over)") {
		t.Errorf("before it:\n%s", out)
	}
	if out, err := s.replay("7"); err == nil || out != "" {
		t.Errorf("the state in the end: %s, %v", out, err)
	}
	for want, args := range map[string][]string{
		`there is no "orders"; there are order_summaries, `: {"7", "--fold", "orders"},
		"there are no events of order-8, payment-8, ":       {"8"},
	} {
		if _, err := s.replay(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", args, err)
		}
	}
	lacking := []eventlog.Recorded{{Stream: "order-7", Revision: 0}, {Stream: "order-7", Revision: 2}}
	if err := whole(lacking); err == nil || !strings.Contains(err.Error(), "lacks its event 1") {
		t.Errorf("a history with a gap: %v", err)
	}
}
