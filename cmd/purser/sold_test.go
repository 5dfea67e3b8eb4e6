package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// wantSold checks that of orders of one piece as many are confirmed as there was stock, and the rest rejected, and that
// stock, payments and the bank's own books agree with that.
func (i *instance) wantSold(t *testing.T, product string, ids []string, stock int) {
	t.Helper()
	orders := map[string]*queryv1.Order{}
	counts := map[typev1.OrderState]int{}
	eventually(t, 4*settle, func() error {
		clear(counts)
		for _, id := range ids {
			o, err := i.get(t.Context(), id, "")
			if err != nil {
				return err
			}
			orders[id] = o
			counts[o.GetState()]++
		}
		if counts[typev1.OrderState_ORDER_STATE_CONFIRMED]+counts[typev1.OrderState_ORDER_STATE_REJECTED] != len(ids) {
			return fmt.Errorf("orders by state: %v", counts)
		}
		return nil
	})
	if counts[typev1.OrderState_ORDER_STATE_CONFIRMED] != stock {
		t.Errorf("orders by state: %v, want %d confirmed", counts, stock)
	}
	eventually(t, settle, func() error {
		if l := i.level(t, product); l.GetAvailable() != 0 || l.GetReserved() != int64(stock) {
			return fmt.Errorf("stock %v", l)
		}
		return nil
	})
	i.wantPaid(t, orders)
}

// wantPaid checks that the money is held once for every confirmed order, and was never asked for the others, which were
// found to be out of stock before.
func (i *instance) wantPaid(t *testing.T, orders map[string]*queryv1.Order) {
	t.Helper()
	books := i.ledger(t)
	for id, o := range orders {
		entries := books[id]
		if o.GetState() == typev1.OrderState_ORDER_STATE_CONFIRMED {
			if o.GetPaymentState() != typev1.PaymentState_PAYMENT_STATE_AUTHORIZED {
				t.Errorf("order %s is confirmed, and its payment is %s", id, o.GetPaymentState())
			}
			if len(entries) != 1 || !entries[0].Held || entries[0].Amount != o.GetTotal().GetAmountMinor() {
				t.Errorf("order %s is confirmed at %v, and the bank's books say %+v", id, o.GetTotal(), entries)
			}
			continue
		}
		if o.GetRejectReason() != typev1.RejectReason_REJECT_REASON_OUT_OF_STOCK || o.GetPaymentState() != typev1.PaymentState_PAYMENT_STATE_NONE {
			t.Errorf("order %s is rejected for %s, and its payment is %s", id, o.GetRejectReason(), o.GetPaymentState())
		}
		if len(entries) > 0 {
			t.Errorf("order %s is rejected, and the bank's books say %+v", id, entries)
		}
	}
}

// entry is an authorization in the books of the simulated bank.
type entry struct {
	Reference string
	Amount    int64
	Held      bool
}

// ledger reads those books in the instance's private Postgres, by order.
func (i *instance) ledger(t *testing.T) map[string][]entry {
	t.Helper()
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(i.dir, "postgres", name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	address := url.URL{
		Scheme: "postgres", User: url.UserPassword("purser", read("password")), Host: net.JoinHostPort(loopback, read("port")),
		Path: "/purser", RawQuery: "sslmode=disable",
	}
	conn, err := pgx.Connect(t.Context(), address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	rows, err := conn.Query(t.Context(), `
		SELECT reference, amount_minor AS amount, decline_code IS NULL AND voided_at IS NULL AS held FROM payment_simulator.payments`)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := pgx.CollectRows(rows, pgx.RowToStructByName[entry])
	if err != nil {
		t.Fatal(err)
	}
	books := map[string][]entry{}
	for _, e := range entries {
		books[e.Reference] = append(books[e.Reference], e)
	}
	return books
}
