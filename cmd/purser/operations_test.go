package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	catalogv1 "github.com/purserhq/purser/proto/purser/catalog/v1"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// Every command by which the operations guide looks into the past is run.
func TestReproduceABug(t *testing.T) {
	i := newInstance(t)
	ctx := t.Context()
	if _, err := i.catalog.CreateProduct(ctx, &catalogv1.CreateProductRequest{
		RequestId: uuid.NewString(), ProductId: "mug", Name: "Mug", Price: &typev1.Money{CurrencyCode: "EUR", AmountMinor: price},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := i.inventory.ReceiveStock(ctx, &inventoryv1.ReceiveStockRequest{RequestId: uuid.NewString(), ProductId: "mug", Quantity: 3}); err != nil {
		t.Fatal(err)
	}
	order := orderOf("mug", 2, "pm_card_visa")
	order.OrderId = "o-1001"
	if _, err := i.orders.PlaceOrder(ctx, order); err != nil {
		t.Fatal(err)
	}
	i.reaches(t, "o-1001", typev1.OrderState_ORDER_STATE_CONFIRMED)

	text, err := os.ReadFile(filepath.Join(repositoryRoot(t), "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Reproduce a bug\n")
	section, _, _ = strings.Cut(section, "\n## ")
	r := readmeRunner{t: t, offset: i.offset, dir: t.TempDir(), grpcurl: goTool(t, "grpcurl")}
	answers := map[string]string{}
	for _, b := range fencedBlocks(section) {
		for _, command := range strings.Split(strings.TrimSpace(b.text), "\n") {
			out, err := r.shell(command)
			if err != nil {
				t.Fatalf("%s: %v", command, err)
			}
			answers[command] = string(out)
		}
	}
	for command, out := range answers {
		want := ""
		switch {
		case strings.Contains(command, "grpcurl"):
			want = `"state": "ORDER_STATE_PLACED"`
		case strings.Contains(command, "stock_levels"):
			want = `"reserved": 2`
		case strings.Contains(command, "todo"):
			want = `- {"step":"CONFIRM_ORDER"`
		case strings.Contains(command, "--step"):
			want = `state: "PLACED" -> "CONFIRMED"`
		}
		if !strings.Contains(out, want) {
			t.Errorf("%s does not say %s:\n%s", command, want, out)
		}
	}
	if len(answers) != 8 {
		t.Errorf("%d commands were found", len(answers))
	}
}
