package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	catalogv1 "github.com/purserhq/purser/proto/purser/catalog/v1"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

func TestBadInputIsRefusedAndLeavesNothing(t *testing.T) {
	i := newInstance(t)
	product := i.stocked(t, 5)
	order := func(change func(*orderv1.PlaceOrderRequest)) func(context.Context) error {
		return func(ctx context.Context) error {
			req := orderOf(product, 1, "pm_card_visa")
			change(req)
			_, err := i.orders.PlaceOrder(ctx, req)
			return err
		}
	}
	create := func(change func(*catalogv1.CreateProductRequest)) func(context.Context) error {
		return func(ctx context.Context) error {
			req := &catalogv1.CreateProductRequest{
				RequestId: uuid.NewString(), ProductId: "p-bad", Name: "x", Price: &typev1.Money{CurrencyCode: "EUR", AmountMinor: 1},
			}
			change(req)
			_, err := i.catalog.CreateProduct(ctx, req)
			return err
		}
	}
	log, err := eventlog.Open("esdb://"+i.addr(eventstorePorts)+"?tls=false", eventschema.New(), quiet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	before, err := log.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	for name, c := range map[string]struct {
		call   func(context.Context) error
		code   codes.Code
		reason string
		field  string
	}{
		"no lines":           {order(func(r *orderv1.PlaceOrderRequest) { r.Lines = nil }), codes.InvalidArgument, "INVALID_FIELD", "lines"},
		"quantity 0":         {order(func(r *orderv1.PlaceOrderRequest) { r.Lines[0].Quantity = 0 }), codes.InvalidArgument, "INVALID_FIELD", "lines[0].quantity"},
		"quantity too large": {order(func(r *orderv1.PlaceOrderRequest) { r.Lines[0].Quantity = 10000 }), codes.InvalidArgument, "INVALID_FIELD", "lines[0].quantity"},
		"a product twice":    {order(func(r *orderv1.PlaceOrderRequest) { r.Lines = append(r.Lines, r.Lines[0]) }), codes.InvalidArgument, "INVALID_FIELD", "lines[1].product_id"},
		"no city":            {order(func(r *orderv1.PlaceOrderRequest) { r.DeliveryAddress.City = nil }), codes.InvalidArgument, "INVALID_FIELD", "delivery_address.city"},
		"empty recipient":    {order(func(r *orderv1.PlaceOrderRequest) { r.DeliveryAddress.Recipient = proto.String("") }), codes.InvalidArgument, "INVALID_FIELD", "delivery_address.recipient"},
		"blank city":         {order(func(r *orderv1.PlaceOrderRequest) { r.DeliveryAddress.City = proto.String("  ") }), codes.InvalidArgument, "INVALID_FIELD", "delivery_address.city"},
		"no such country":    {order(func(r *orderv1.PlaceOrderRequest) { r.DeliveryAddress.CountryCode = "XX" }), codes.InvalidArgument, "INVALID_FIELD", "delivery_address.country_code"},
		"no address":         {order(func(r *orderv1.PlaceOrderRequest) { r.DeliveryAddress = nil }), codes.InvalidArgument, "INVALID_FIELD", "delivery_address"},
		"malformed order id": {order(func(r *orderv1.PlaceOrderRequest) { r.OrderId = "a b" }), codes.InvalidArgument, "INVALID_FIELD", "order_id"},
		"no payment method":  {order(func(r *orderv1.PlaceOrderRequest) { r.PaymentMethod = "" }), codes.InvalidArgument, "INVALID_FIELD", "payment_method"},
		"request id no UUID": {order(func(r *orderv1.PlaceOrderRequest) { r.RequestId = "1" }), codes.InvalidArgument, "INVALID_FIELD", "request_id"},
		"undefined priority": {order(func(r *orderv1.PlaceOrderRequest) { r.Priority = 42 }), codes.InvalidArgument, "INVALID_FIELD", "priority"},
		"unknown product":    {order(func(r *orderv1.PlaceOrderRequest) { r.Lines[0].ProductId = "nothing" }), codes.NotFound, "PRODUCT_NOT_FOUND", ""},
		"negative price":     {create(func(r *catalogv1.CreateProductRequest) { r.Price.AmountMinor = -1 }), codes.InvalidArgument, "INVALID_FIELD", "price"},
		"no price":           {create(func(r *catalogv1.CreateProductRequest) { r.Price = nil }), codes.InvalidArgument, "INVALID_FIELD", "price"},
		"malformed currency": {create(func(r *catalogv1.CreateProductRequest) { r.Price.CurrencyCode = "euro" }), codes.InvalidArgument, "INVALID_FIELD", "price.currency_code"},
		"no such currency":   {create(func(r *catalogv1.CreateProductRequest) { r.Price.CurrencyCode = "ABC" }), codes.InvalidArgument, "INVALID_FIELD", "price.currency_code"},
		"product id taken":   {create(func(r *catalogv1.CreateProductRequest) { r.ProductId = product }), codes.AlreadyExists, "PRODUCT_EXISTS", ""},
		"over the size":      {create(func(r *catalogv1.CreateProductRequest) { r.Description = strings.Repeat("x", 3<<20) }), codes.ResourceExhausted, "MESSAGE_TOO_LARGE", ""},
		"NUL in a text":      {create(func(r *catalogv1.CreateProductRequest) { r.Description = "a\x00b" }), codes.InvalidArgument, "INVALID_FIELD", "description"},
		"stale etag":         {order(func(r *orderv1.PlaceOrderRequest) { r.Etag = `"3"` }), codes.Aborted, "ETAG_MISMATCH", ""},
		"stock of no product": {func(ctx context.Context) error {
			_, err := i.inventory.ReceiveStock(ctx, &inventoryv1.ReceiveStockRequest{RequestId: uuid.NewString(), ProductId: "nothing", Quantity: 1})
			return err
		}, codes.NotFound, "PRODUCT_NOT_FOUND", ""},
		"cancel of no order": {func(ctx context.Context) error {
			_, err := i.orders.CancelOrder(ctx, &orderv1.CancelOrderRequest{RequestId: uuid.NewString(), OrderId: "nothing"})
			return err
		}, codes.NotFound, "ORDER_NOT_FOUND", ""},
		"read of no order": {func(ctx context.Context) error { _, err := i.get(ctx, "nothing", ""); return err }, codes.NotFound, "ORDER_NOT_FOUND", ""},
		"read of neither id nor number": {func(ctx context.Context) error {
			_, err := i.query.GetOrder(ctx, &queryv1.GetOrderRequest{})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD", "order_id"},
		"made-up token": {func(ctx context.Context) error { _, err := i.get(ctx, "nothing", "zzz"); return err }, codes.InvalidArgument, "INVALID_FIELD", "consistency_token"},
		"filter on a field that is none": {func(ctx context.Context) error {
			_, err := i.query.ListOrders(ctx, &queryv1.ListOrdersRequest{Filter: "price = 3"})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD", "filter"},
		"NUL in a filter": {func(ctx context.Context) error {
			_, err := i.query.ListOrders(ctx, &queryv1.ListOrdersRequest{Filter: "customer_id = \"a\x00\""})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD", "filter"},
		"negative page size": {func(ctx context.Context) error {
			_, err := i.query.ListOrders(ctx, &queryv1.ListOrdersRequest{PageSize: -1})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD", "page_size"},
		"made-up page token": {func(ctx context.Context) error {
			_, err := i.query.ListProducts(ctx, &queryv1.ListProductsRequest{PageToken: "zzz"})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD", "page_token"},
		"no such report": {func(ctx context.Context) error {
			_, err := i.query.RunReport(ctx, &queryv1.RunReportRequest{Report: "nothing"})
			return err
		}, codes.NotFound, "REPORT_NOT_FOUND", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := wantError(t, c.call(t.Context()), c.code, c.reason)
			if c.field == "" {
				return
			}
			for _, d := range s.Details() {
				if bad, ok := d.(*errdetails.BadRequest); ok {
					if got := bad.GetFieldViolations()[0].GetField(); got != c.field {
						t.Errorf("the violation is of %q, want %q", got, c.field)
					}
					return
				}
			}
			t.Errorf("no BadRequest in %v", s.Details())
		})
	}
	after, err := log.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after != before {
		t.Errorf("something was stored: the log went from %d to %d", before, after)
	}
}

// What a command can see to be wrong it says in one sentence, before it connects to anything or starts anything.
func TestBadArgumentsAreRefused(t *testing.T) {
	taken := filepath.Join(t.TempDir(), "taken")
	if err := os.WriteFile(taken, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"stream show":                  "STREAM is missing: it is purser stream show STREAM",
		"stream show a b":              `"b" is one argument too many: it is purser stream show STREAM`,
		"stream import":                "FILE is missing",
		"stream export a b":            `"b" is one argument too many: it is purser stream export [STREAM]`,
		"stream ls a":                  `unknown command "a"`,
		"stream bogus":                 `unknown command "bogus"`,
		"health":                       "HOST:PORT is missing",
		"health http://127.0.0.1:8051": `"http://127.0.0.1:8051" is no HOST:PORT`,
		"health 8051":                  `"8051" is no HOST:PORT`,
		"replay":                       "KEY is missing: it is purser replay KEY",
		"replay a b":                   `"b" is one argument too many: it is purser replay KEY`,
		"eventstore backup":            "DIR is missing",
		"eventstore verify":            "DIR is missing",
		"eventstore verify /nothere":   "there is no event store in /nothere: there is no such directory",
		"eventstore backup " + taken:   "back up the event store: " + taken + " exists already",
		"eventstore backup /new --url esdb://a:1":      "--url is no HTTP address",
		"eventstore backup /new --url http://":         "--url is no HTTP address",
		"eventstore backup /new --url http://me:pw@[a": "--url is no HTTP address",
		"bench bogus":                                  `unknown command "bogus"`,
		"bench append --rounds 0":                      "--rounds must be at least 1, not 0",
		"bench append --rounds -1 --round-time 0":      "--rounds must be at least 1, not -1",
		"bench read --round-time 0":                    "--round-time must be at least 1ms, not 0s",
		"stream ls --limit -1":                         "--limit must be at least 0, not -1",
		"stream show a --from -1":                      "--from must be at least 0, not -1",
		"stream show a --limit -2 --from -1":           "--from must be at least 0, not -1",
		"stream show a --limit -2":                     "--limit must be at least 0, not -2",
		"stream tail --filter /a":                      "--filter /a begins as a regular expression, but doesn't end with a slash",
		"stream tail --filter /":                       "--filter / begins as a regular expression",
		"stream tail --filter /(/":                     "--filter: error parsing regexp",
		"stream export --all --output " + taken:        "--output: " + taken + " exists already, and is not overwritten; give another name",
		"stream export --all --output " + taken + "/x": "--output: ",
		"audit --model nothing":                        `--model: there is no "nothing"; there are order_summaries`,
		"audit --data-dir /nothere":                    "--data-dir: there is no private Postgres in /nothere/postgres",
		"projection bogus":                             `unknown command "bogus"`,
		"projection unpark a":                          "KEY is missing: it is purser projection unpark NAME KEY",
		"projection switch":                            "NAME is missing: it is purser projection switch NAME [BUILD]",
		"projection switch a b c":                      `"c" is one argument too many: it is purser projection switch NAME [BUILD]`,
		"projection drop":                              "BUILD is missing: it is purser projection drop BUILD",
		"projector --models=payments,nonsense":         `there is no read model "nonsense"; there are order_summaries, order_details, products`,
		"audit --data-dir /nothere --postgres-url x":   "--data-dir and --postgres-url (PURSER_DATA_DIR, PURSER_POSTGRES_URL) name two databases; give one",
		"projection parked a b":                        `"b" is one argument too many: it is purser projection parked [NAME]`,
	} {
		begun := time.Now()
		out, err := runCommand(t, strings.Fields(args)...)
		switch {
		case err == nil || !strings.HasPrefix(err.Error(), want):
			t.Errorf("purser %s: %v, want %q", args, err, want)
		case strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "pw") || out != "":
			t.Errorf("purser %s: %v, and %q", args, err, out)
		case time.Since(begun) > time.Second:
			t.Errorf("purser %s took %v", args, time.Since(begun))
		}
	}
	if got, err := os.ReadFile(taken); err != nil || string(got) != "mine" {
		t.Errorf("the file that was there is %q, %v", got, err)
	}
}

// A connection string that can't be read is refused before there is a data directory.
func TestABadURLOfDevLeavesNothing(t *testing.T) {
	for name, args := range map[string][]string{
		"no Postgres":            {"--postgres-url", "bogus"},
		"a port that is none":    {"--postgres-url", "postgres://me:pw@127.0.0.1:x/purser"},
		"no event store":         {"--eventstore-url", "bogus"},
		"one of another kind":    {"--eventstore-url", "http://127.0.0.1:2113"},
		"a good one and a bogus": {"--eventstore-url", "esdb://127.0.0.1:1?tls=false", "--postgres-url", "bogus"},
	} {
		dir := filepath.Join(t.TempDir(), "data")
		_, err := runCommand(t, append([]string{"dev", "--data-dir", dir, "--port-offset", fmt.Sprint(freeOffset(t))}, args...)...)
		if err == nil || !strings.Contains(err.Error(), "connection string") || strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "pw@") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a data directory was made: %v", name, err)
		}
	}
}
