package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// What one Purser did is exported, imported into a fresh store, at first only a part of it, and another Purser on that
// store, with a database of its own, gives the same answers and goes on from there.
func TestAnExportImportedElsewhereGivesTheSameAnswers(t *testing.T) {
	i := newInstance(t)
	product := i.stocked(t, 10)
	var orders []string
	for method, state := range map[string]typev1.OrderState{
		"pm_card_visa":           typev1.OrderState_ORDER_STATE_CONFIRMED,
		"pm_sim_timeout":         typev1.OrderState_ORDER_STATE_CONFIRMED,
		"pm_card_chargeDeclined": typev1.OrderState_ORDER_STATE_REJECTED,
	} {
		placed, err := i.orders.PlaceOrder(t.Context(), orderOf(product, 2, method))
		if err != nil {
			t.Fatal(err)
		}
		i.reaches(t, placed.GetOrderId(), state)
		orders = append(orders, placed.GetOrderId())
	}

	file := filepath.Join(t.TempDir(), "all.jsonl")
	onStore(t, "esdb://"+i.addr(eventstorePorts)+"?tls=false").run("export", "--all", "--output", file)
	fresh := newStreamStore(t)
	part := filepath.Join(t.TempDir(), "part.jsonl")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(part, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	fresh.run("import", part, "--partial")
	fresh.run("import", file)
	events := bytes.Count(whole, []byte("\n")) - 1
	if out := fresh.run("import", file); out != fmt.Sprintf("0 events added, %d there before, 0 left out\n", events) {
		t.Errorf("of %d events: %s", events, out)
	}

	other := newInstance(t, "--eventstore-url", fresh.url)
	same := func(what string, ask func(clients) (proto.Message, error)) {
		t.Helper()
		eventually(t, settle, func() error {
			want, err := ask(i.clients)
			if err != nil {
				return err
			}
			got, err := ask(other.clients)
			if err == nil && !proto.Equal(got, want) {
				err = fmt.Errorf("%s: %v became %v", what, want, got)
			}
			return err
		})
	}
	for _, id := range orders {
		same("order", func(c clients) (proto.Message, error) { return c.get(t.Context(), id, "") })
	}
	same("stock", func(c clients) (proto.Message, error) {
		return c.query.GetStockLevel(t.Context(), &queryv1.GetStockLevelRequest{ProductId: product})
	})

	next, err := other.orders.PlaceOrder(t.Context(), orderOf(product, 1, "pm_card_visa"))
	if err != nil {
		t.Fatal(err)
	}
	other.reaches(t, next.GetOrderId(), typev1.OrderState_ORDER_STATE_CONFIRMED)
}
