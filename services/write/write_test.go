package write

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/domain/catalog"
	"github.com/purserhq/purser/internal/domain/order"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/secret"
	catalogv1 "github.com/purserhq/purser/proto/purser/catalog/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// services are both of the process, on an event store of their own.
type services struct {
	catalog *catalogServer
	orders  *orderServer
}

func newServices(t *testing.T) services {
	t.Helper()
	log := newLog(t)
	s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	return servicesOn(t, log, s)
}

func servicesOn(t *testing.T, log *eventlog.Log, s *secret.Secret) services {
	t.Helper()
	products := aggregate.New[catalog.State](log, eventschema.Product, s, time.Now)
	prices := newPrices(products)
	follow(t, prices, log)
	return services{
		catalog: &catalogServer{products: products, prices: prices},
		orders:  &orderServer{orders: aggregate.New[order.State](log, eventschema.Order, s, time.Now), prices: prices, secret: s},
	}
}

func eur(minor int64) *typev1.Money { return &typev1.Money{CurrencyCode: "EUR", AmountMinor: minor} }

func (s services) create(t *testing.T, product string, price *typev1.Money) {
	t.Helper()
	if _, err := s.catalog.CreateProduct(t.Context(), &catalogv1.CreateProductRequest{
		RequestId: uuid.NewString(), ProductId: product, Name: product, Price: price,
	}); err != nil {
		t.Fatal(err)
	}
}

func (s services) changePrice(t *testing.T, product string, minor int64) {
	t.Helper()
	if _, err := s.catalog.ChangePrice(t.Context(), &catalogv1.ChangePriceRequest{
		RequestId: uuid.NewString(), ProductId: product, Price: eur(minor),
	}); err != nil {
		t.Fatal(err)
	}
}

func (s services) discontinue(t *testing.T, product string) *catalogv1.DiscontinueProductResponse {
	t.Helper()
	reply, err := s.catalog.DiscontinueProduct(t.Context(), &catalogv1.DiscontinueProductRequest{RequestId: uuid.NewString(), ProductId: product})
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

func placing(products ...string) *orderv1.PlaceOrderRequest {
	req := &orderv1.PlaceOrderRequest{
		RequestId: uuid.NewString(), CustomerId: "ada", PaymentMethod: "pm_card_visa",
		DeliveryAddress: &typev1.Address{
			Recipient: proto.String("Ada"), Line1: proto.String("Street 1"), City: proto.String("Delft"), PostalCode: "2611", CountryCode: "NL",
		},
	}
	for _, p := range products {
		req.Lines = append(req.Lines, &orderv1.OrderLineRequest{ProductId: p, Quantity: 2})
	}
	return req
}

func (s services) place(t *testing.T, req *orderv1.PlaceOrderRequest) *orderv1.PlaceOrderResponse {
	t.Helper()
	reply, err := s.orders.PlaceOrder(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// An order keeps the price it was placed at, and its repeat says so whatever has become of the catalogue since.
func TestARepeatKeepsThePriceItWasPlacedAt(t *testing.T) {
	s := newServices(t)
	s.create(t, "mug", eur(1450))
	req := placing("mug")
	first := s.place(t, req)
	if first.GetTotal().GetAmountMinor() != 2900 || first.GetState() != typev1.OrderState_ORDER_STATE_PLACED || first.GetEtag() != `"0"` ||
		len(first.GetOrderNumber()) != 14 || first.GetOrderId() == "" {
		t.Errorf("replied %v", first)
	}
	s.changePrice(t, "mug", 1600)
	if again := s.place(t, req); !proto.Equal(again, first) {
		t.Errorf("at another price: %v, first %v", again, first)
	}
	if other := s.place(t, placing("mug")); other.GetTotal().GetAmountMinor() != 3200 {
		t.Errorf("placed since: %v", other)
	}
	s.discontinue(t, "mug")
	if again := s.place(t, req); !proto.Equal(again, first) {
		t.Errorf("discontinued: %v, first %v", again, first)
	}
}

func TestWhatCantBeOrdered(t *testing.T) {
	s := newServices(t)
	s.create(t, "mug", eur(1450))
	s.create(t, "pen", &typev1.Money{CurrencyCode: "USD", AmountMinor: 100})
	s.create(t, "yacht", eur(1_000_000_000_000))
	s.create(t, "old", eur(1))
	first := s.discontinue(t, "old")
	if again := s.discontinue(t, "old"); again.GetEtag() != first.GetEtag() {
		t.Errorf("discontinued twice: %v, first %v", again, first)
	}
	s.place(t, placing("yacht"))
	dear := placing("yacht")
	dear.Lines[0].Quantity = 1001
	for name, c := range map[string]struct {
		req    *orderv1.PlaceOrderRequest
		reason typev1.ErrorReason
	}{
		"a discontinued product": {placing("mug", "old"), typev1.ErrorReason_ERROR_REASON_PRODUCT_DISCONTINUED},
		"no product":             {placing("mug", "nothing"), typev1.ErrorReason_ERROR_REASON_PRODUCT_NOT_FOUND},
		"two currencies":         {placing("mug", "pen"), typev1.ErrorReason_ERROR_REASON_CURRENCY_MISMATCH},
		"for more than 10^15":    {dear, typev1.ErrorReason_ERROR_REASON_INVALID_FIELD},
	} {
		c.req.OrderId = "o-" + c.req.GetRequestId()
		if _, err := s.orders.PlaceOrder(t.Context(), c.req); !fault.Is(err, c.reason) {
			t.Errorf("%s: %v, want %v", name, err, c.reason)
		}
		if _, err := s.orders.CancelOrder(t.Context(), &orderv1.CancelOrderRequest{RequestId: uuid.NewString(), OrderId: c.req.GetOrderId()}); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND) {
			t.Errorf("%s left an order behind: %v", name, err)
		}
	}
}

func TestAnOrderIDIsTakenOnce(t *testing.T) {
	s := newServices(t)
	s.create(t, "mug", eur(1450))
	first, second := placing("mug"), placing("mug")
	first.OrderId, second.OrderId = "7", "7"
	s.place(t, first)
	if _, err := s.orders.PlaceOrder(t.Context(), second); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_ORDER_EXISTS) {
		t.Errorf("placed under an id that is taken: %v", err)
	}
}

// A reply tells the state in which its command left the order, also when it is repeated later.
func TestStatesOfReplies(t *testing.T) {
	s := newServices(t)
	s.create(t, "mug", eur(1450))
	id := s.place(t, placing("mug")).GetOrderId()
	confirm := &orderv1.ConfirmOrderRequest{RequestId: uuid.NewString(), OrderId: id}
	cancel := &orderv1.CancelOrderRequest{RequestId: uuid.NewString(), OrderId: id}
	mark := &orderv1.MarkCancelledRequest{RequestId: uuid.NewString(), OrderId: id}
	type reply interface {
		GetState() typev1.OrderState
		GetEtag() string
	}
	call := func(do func(context.Context) (reply, error)) func(typev1.OrderState, string) {
		return func(state typev1.OrderState, etag string) {
			t.Helper()
			r, err := do(t.Context())
			if err != nil || r.GetState() != state || r.GetEtag() != etag {
				t.Errorf("%v, %v, want %v at %s", r, err, state, etag)
			}
		}
	}
	confirms := call(func(ctx context.Context) (reply, error) { return s.orders.ConfirmOrder(ctx, confirm) })
	cancels := call(func(ctx context.Context) (reply, error) { return s.orders.CancelOrder(ctx, cancel) })
	marks := call(func(ctx context.Context) (reply, error) { return s.orders.MarkCancelled(ctx, mark) })

	confirms(typev1.OrderState_ORDER_STATE_CONFIRMED, `"1"`)
	cancels(typev1.OrderState_ORDER_STATE_CANCELLING, `"2"`)
	confirms(typev1.OrderState_ORDER_STATE_CONFIRMED, `"1"`)
	marks(typev1.OrderState_ORDER_STATE_CANCELLED, `"3"`)
	cancels(typev1.OrderState_ORDER_STATE_CANCELLING, `"2"`)
	cancel = &orderv1.CancelOrderRequest{RequestId: uuid.NewString(), OrderId: id} // by another request: it is there already
	cancels(typev1.OrderState_ORDER_STATE_CANCELLED, `"3"`)

	// Other commands under these request ids are no repeats.
	_, err := s.orders.ConfirmOrder(t.Context(), &orderv1.ConfirmOrderRequest{RequestId: mark.GetRequestId(), OrderId: id})
	if !fault.Is(err, typev1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED) {
		t.Errorf("confirmed under the request id of another command: %v", err)
	}
	rejected := s.place(t, placing("mug")).GetOrderId()
	r, err := s.orders.RejectOrder(t.Context(), &orderv1.RejectOrderRequest{
		RequestId: uuid.NewString(), OrderId: rejected, Reason: typev1.RejectReason_REJECT_REASON_OUT_OF_STOCK,
	})
	if err != nil || r.GetState() != typev1.OrderState_ORDER_STATE_REJECTED {
		t.Errorf("%v, %v", r, err)
	}
	_, err = s.orders.CancelOrder(t.Context(), &orderv1.CancelOrderRequest{RequestId: uuid.NewString(), OrderId: rejected})
	if !fault.Is(err, typev1.ErrorReason_ERROR_REASON_ILLEGAL_TRANSITION) {
		t.Errorf("cancelled after it was rejected: %v", err)
	}
}
