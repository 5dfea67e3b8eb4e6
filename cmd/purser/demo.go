package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"text/tabwriter"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/origin"
	"github.com/purserhq/purser/internal/rpc"
	catalogv1 "github.com/purserhq/purser/proto/purser/catalog/v1"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// demoTimeout bounds the whole demonstration.
const demoTimeout = 2 * time.Minute

func demoCommand() *cobra.Command {
	var write, inventory, query string
	var portOffset int
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Seed a catalogue, place a handful of orders and show what became of each",
		Long: "Seeds a catalogue and stock and places orders that are confirmed, out of stock, declined and cancelled, " +
			"all through the public gRPC API of a running Purser. It may be run any number of times.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(cmd)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), demoTimeout)
			defer cancel()
			for url, p := range map[*string]ports{&write: writePorts, &inventory: inventoryPorts, &query: queryPorts} {
				if *url == "" {
					*url = target(p.offset(portOffset))
				}
			}
			d, err := newDemo(write, inventory, query, log)
			if err != nil {
				return err
			}
			defer d.close()
			return d.run(origin.With(ctx, origin.Origin{Actor: "demo"}), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&write, "write-url", "", "host:port of the write service; that of make run if empty")
	cmd.Flags().StringVar(&inventory, "inventory-url", "", "host:port of the inventory service; that of make run if empty")
	cmd.Flags().StringVar(&query, "query-url", "", "host:port of the query service; that of make run if empty")
	cmd.Flags().IntVar(&portOffset, "port-offset", 0, "that of the purser dev which is meant, where no URLs are given")
	return cmd
}

type demo struct {
	conns     []*grpc.ClientConn
	catalog   catalogv1.CatalogServiceClient
	orders    orderv1.OrderServiceClient
	inventory inventoryv1.InventoryServiceClient
	query     queryv1.QueryServiceClient
}

func newDemo(write, inventory, query string, log *slog.Logger) (*demo, error) {
	d := &demo{}
	m := rpc.NewMetrics(prometheus.NewRegistry())
	dial := func(target, service string) (*grpc.ClientConn, error) {
		conn, err := rpc.Dial(target, service, log, m)
		if err == nil {
			d.conns = append(d.conns, conn)
		}
		return conn, err
	}
	w, err := dial(write, "write")
	if err != nil {
		return nil, err
	}
	i, err := dial(inventory, "inventory")
	if err != nil {
		return nil, err
	}
	q, err := dial(query, "query")
	if err != nil {
		return nil, err
	}
	d.catalog, d.orders = catalogv1.NewCatalogServiceClient(w), orderv1.NewOrderServiceClient(w)
	d.inventory, d.query = inventoryv1.NewInventoryServiceClient(i), queryv1.NewQueryServiceClient(q)
	return d, nil
}

func (d *demo) close() {
	for _, c := range d.conns {
		c.Close()
	}
}

// demoProduct is sold at a price in cents. Its stock is received at every run, or once and for all.
type demoProduct struct {
	id, name     string
	price, stock int64
	once         bool
}

var demoProducts = []demoProduct{
	{id: "demo-mug", name: "Enamel mug", price: 1450, stock: 20},
	{id: "demo-lamp", name: "Storm lamp", price: 5900, stock: 20},
	{id: "demo-atlas", name: "Atlas, 1st edition", price: 240000, stock: 1, once: true},
}

// demoOrder is an order to place, and its id once it is placed; what says in words how it differs from the others.
type demoOrder struct {
	what   string
	lines  []*orderv1.OrderLineRequest
	method string
	cancel bool
	id     string
}

func demoOrders() []*demoOrder {
	line := func(id string, n int64) *orderv1.OrderLineRequest {
		return &orderv1.OrderLineRequest{ProductId: id, Quantity: n}
	}
	return []*demoOrder{
		{what: "two mugs and a lamp", lines: []*orderv1.OrderLineRequest{line("demo-mug", 2), line("demo-lamp", 1)}, method: "pm_card_visa"},
		{what: "one lamp, bank slow to answer", lines: []*orderv1.OrderLineRequest{line("demo-lamp", 1)}, method: "pm_sim_slow"},
		{what: "one mug, answer of the bank lost", lines: []*orderv1.OrderLineRequest{line("demo-mug", 1)}, method: "pm_sim_timeout"},
		{what: "more atlases than there are", lines: []*orderv1.OrderLineRequest{line("demo-mug", 1), line("demo-atlas", 50)}, method: "pm_card_visa"},
		{what: "one mug, card declined", lines: []*orderv1.OrderLineRequest{line("demo-mug", 1)}, method: "pm_card_chargeDeclined"},
		{what: "one lamp, cancelled", lines: []*orderv1.OrderLineRequest{line("demo-lamp", 1)}, method: "pm_card_visa", cancel: true},
	}
}

func (d *demo) run(ctx context.Context, out, progress io.Writer) error {
	orders := demoOrders()
	bar := newBar(progress, int64(len(demoProducts)+2*len(orders)), "demo", progressbar.OptionShowCount())
	for _, p := range demoProducts {
		if err := d.seed(ctx, p); err != nil {
			return fmt.Errorf("seed %s: %w", p.id, err)
		}
		_ = bar.Add(1)
	}
	for _, o := range orders {
		if err := d.place(ctx, o); err != nil {
			return fmt.Errorf("place the order of %s: %w", o.what, err)
		}
		_ = bar.Add(1)
	}
	results := make([]*queryv1.Order, len(orders))
	for i, o := range orders {
		var err error
		if results[i], err = d.await(ctx, o.id); err != nil {
			return fmt.Errorf("wait for the order of %s: %w", o.what, err)
		}
		_ = bar.Add(1)
	}
	_ = bar.Finish()
	return printResults(out, orders, results)
}

// seed creates a product, unless an earlier run did, and receives stock of it.
func (d *demo) seed(ctx context.Context, p demoProduct) error {
	_, err := d.catalog.CreateProduct(ctx, &catalogv1.CreateProductRequest{
		RequestId: uuid.NewString(), ProductId: p.id, Name: p.name,
		Price: &typev1.Money{CurrencyCode: "EUR", AmountMinor: p.price},
	})
	exists := fault.Is(err, typev1.ErrorReason_ERROR_REASON_PRODUCT_EXISTS)
	if err != nil && !exists {
		return err
	}
	if exists && p.once {
		return nil
	}
	_, err = d.inventory.ReceiveStock(ctx, &inventoryv1.ReceiveStockRequest{RequestId: uuid.NewString(), ProductId: p.id, Quantity: p.stock})
	return err
}

func (d *demo) place(ctx context.Context, o *demoOrder) error {
	placed, err := d.orders.PlaceOrder(ctx, &orderv1.PlaceOrderRequest{
		RequestId: uuid.NewString(), CustomerId: "demo-customer", Lines: o.lines, PaymentMethod: o.method,
		DeliveryAddress: &typev1.Address{
			Recipient: proto.String("A. Purser"), Line1: proto.String("Havenstraat 1"), City: proto.String("Rotterdam"),
			PostalCode: "3011 AA", CountryCode: "NL",
		},
	})
	if err != nil {
		return err
	}
	o.id = placed.GetOrderId()
	if o.cancel {
		_, err = d.orders.CancelOrder(ctx, &orderv1.CancelOrderRequest{RequestId: uuid.NewString(), OrderId: o.id, Reason: "changed my mind"})
	}
	return err
}

// await polls until an order has reached its end, or is confirmed.
func (d *demo) await(ctx context.Context, id string) (*queryv1.Order, error) {
	return backoff.Retry(ctx, func() (*queryv1.Order, error) {
		reply, err := d.query.GetOrder(ctx, &queryv1.GetOrderRequest{Order: &queryv1.GetOrderRequest_OrderId{OrderId: id}})
		if err != nil {
			return nil, err
		}
		switch reply.GetOrder().GetState() {
		case typev1.OrderState_ORDER_STATE_CONFIRMED, typev1.OrderState_ORDER_STATE_REJECTED, typev1.OrderState_ORDER_STATE_CANCELLED:
			return reply.GetOrder(), nil
		}
		return nil, fmt.Errorf("order %s is %s", id, reply.GetOrder().GetState())
	}, backoff.WithBackOff(backoff.NewConstantBackOff(100*time.Millisecond)), backoff.WithMaxElapsedTime(0))
}

func printResults(out io.Writer, orders []*demoOrder, results []*queryv1.Order) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ORDER\tWHAT\tTOTAL\tSTATE\tREASON\tPAYMENT\tGOODS")
	for i, o := range results {
		reason := ""
		if o.GetRejectReason() != 0 {
			reason = shortName(o.GetRejectReason(), "REJECT_REASON_")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", o.GetOrderNumber(), orders[i].what, formatMoney(o.GetTotal()),
			shortName(o.GetState(), "ORDER_STATE_"), reason,
			shortName(o.GetPaymentState(), "PAYMENT_STATE_"), shortName(o.GetFulfillmentState(), "FULFILLMENT_STATE_"))
	}
	return w.Flush()
}

func shortName(v fmt.Stringer, prefix string) string { return v.String()[len(prefix):] }

// formatMoney shows an amount of a currency with two decimals, as all of the demonstration are.
func formatMoney(m *typev1.Money) string {
	return fmt.Sprintf("%d.%02d %s", m.GetAmountMinor()/100, m.GetAmountMinor()%100, m.GetCurrencyCode())
}
