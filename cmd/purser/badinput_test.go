package main

import (
	"context"
	"strings"
	"testing"

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
		"a product twice":    {order(func(r *orderv1.PlaceOrderRequest) { r.Lines = append(r.Lines, r.Lines[0]) }), codes.InvalidArgument, "INVALID_FIELD", "lines"},
		"no city":            {order(func(r *orderv1.PlaceOrderRequest) { r.DeliveryAddress.City = nil }), codes.InvalidArgument, "INVALID_FIELD", "delivery_address.city"},
		"empty recipient":    {order(func(r *orderv1.PlaceOrderRequest) { r.DeliveryAddress.Recipient = proto.String("") }), codes.InvalidArgument, "INVALID_FIELD", "delivery_address.recipient"},
		"no address":         {order(func(r *orderv1.PlaceOrderRequest) { r.DeliveryAddress = nil }), codes.InvalidArgument, "INVALID_FIELD", "delivery_address"},
		"malformed order id": {order(func(r *orderv1.PlaceOrderRequest) { r.OrderId = "a b" }), codes.InvalidArgument, "INVALID_FIELD", "order_id"},
		"no payment method":  {order(func(r *orderv1.PlaceOrderRequest) { r.PaymentMethod = "" }), codes.InvalidArgument, "INVALID_FIELD", "payment_method"},
		"request id no UUID": {order(func(r *orderv1.PlaceOrderRequest) { r.RequestId = "1" }), codes.InvalidArgument, "INVALID_FIELD", "request_id"},
		"undefined priority": {order(func(r *orderv1.PlaceOrderRequest) { r.Priority = 42 }), codes.InvalidArgument, "INVALID_FIELD", "priority"},
		"unknown product":    {order(func(r *orderv1.PlaceOrderRequest) { r.Lines[0].ProductId = "nothing" }), codes.NotFound, "PRODUCT_NOT_FOUND", ""},
		"negative price":     {create(func(r *catalogv1.CreateProductRequest) { r.Price.AmountMinor = -1 }), codes.InvalidArgument, "INVALID_FIELD", "price"},
		"no price":           {create(func(r *catalogv1.CreateProductRequest) { r.Price = nil }), codes.InvalidArgument, "INVALID_FIELD", "price"},
		"malformed currency": {create(func(r *catalogv1.CreateProductRequest) { r.Price.CurrencyCode = "euro" }), codes.InvalidArgument, "INVALID_FIELD", "price.currency_code"},
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
		"made-up token":    {func(ctx context.Context) error { _, err := i.get(ctx, "nothing", "zzz"); return err }, codes.InvalidArgument, "INVALID_FIELD", "consistency_token"},
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
