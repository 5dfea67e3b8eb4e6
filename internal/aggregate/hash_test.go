package aggregate

import (
	"bytes"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purserhq/purser/internal/secret"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	paymentv1 "github.com/purserhq/purser/proto/purser/payment/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

func placeOrder() *orderv1.PlaceOrderRequest {
	return &orderv1.PlaceOrderRequest{
		RequestId: "r", CustomerId: "c", PaymentMethod: "pm",
		Lines:           []*orderv1.OrderLineRequest{{ProductId: "a", Quantity: 1}, {ProductId: "b", Quantity: 2}},
		DeliveryAddress: &typev1.Address{Line1: proto.String("x"), CountryCode: "NL"},
	}
}

func TestHashIsOfWhatIsAskedFor(t *testing.T) {
	s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	h := &hasher{secret: s}
	recorded := h.hash(placeOrder())
	for name, c := range map[string]struct {
		change func(*orderv1.PlaceOrderRequest)
		same   bool
	}{
		"nothing":        {func(*orderv1.PlaceOrderRequest) {}, true},
		"request id":     {func(r *orderv1.PlaceOrderRequest) { r.RequestId = "other" }, true},
		"etag":           {func(r *orderv1.PlaceOrderRequest) { r.Etag = `"1"` }, true},
		"customer":       {func(r *orderv1.PlaceOrderRequest) { r.CustomerId = "d" }, false},
		"quantity":       {func(r *orderv1.PlaceOrderRequest) { r.Lines[1].Quantity = 3 }, false},
		"order of lines": {func(r *orderv1.PlaceOrderRequest) { r.Lines[0], r.Lines[1] = r.Lines[1], r.Lines[0] }, false},
		"nested field":   {func(r *orderv1.PlaceOrderRequest) { r.DeliveryAddress.Line1 = proto.String("y") }, false},
		"empty, present": {func(r *orderv1.PlaceOrderRequest) { r.DeliveryAddress.Line2 = proto.String("") }, false},
		"priority":       {func(r *orderv1.PlaceOrderRequest) { r.Priority = typev1.Priority_PRIORITY_CRITICAL }, false},
		"moved text":     {func(r *orderv1.PlaceOrderRequest) { r.CustomerId, r.OrderId = "", "c" }, false},
	} {
		r := placeOrder()
		c.change(r)
		if got := h.matches(r, recorded); got != c.same {
			t.Errorf("%s: matches is %v, want %v", name, got, c.same)
		}
	}
	void := &paymentv1.VoidPaymentRequest{RequestId: "r", OrderId: "o"}
	if h.matches(&paymentv1.ReconcilePaymentRequest{RequestId: "r", OrderId: "o"}, h.hash(void)) {
		t.Error("another command with the same fields was taken for a repeat")
	}
	reserve := &inventoryv1.ReserveStockRequest{ProductId: "p", OrderId: "o", Quantity: 1}
	recorded = h.hash(reserve)
	reserve.ValidUntil = timestamppb.Now()
	if !h.matches(reserve, recorded) {
		t.Error("the deadline of an attempt changed what the command asks for")
	}
	if !h.matches(placeOrder(), "0.k1.00") || !h.matches(placeOrder(), "1.gone.00") {
		t.Error("a hash that can't be made again was compared")
	}
}

// The bytes are pinned: hashes made by one build are compared by later ones.
func TestCanonicalEncodingIsPinned(t *testing.T) {
	m := &orderv1.OrderLineRequest{ProductId: "ab", Quantity: 3}
	want := []byte{1, 2, 'a', 'b', 2, 1, 6}
	if got := new(hasher).appendMessage(nil, m.ProtoReflect()); !bytes.Equal(got, want) {
		t.Errorf("canonical %v, want %v", got, want)
	}
	m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
	if got := new(hasher).appendMessage(nil, m.ProtoReflect()); !bytes.Equal(got, want) {
		t.Errorf("with a field this build does not know: %v, want %v", got, want)
	}
}

func TestTokenRoundTrip(t *testing.T) {
	for _, bad := range []string{"x", "!!", "MToxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMw", "Mjox"} {
		if p, err := ParseToken(bad); err == nil {
			t.Errorf("%q was read as %d", bad, p)
		}
	}
	if p, err := ParseToken(Token(42)); p != 42 || err != nil {
		t.Errorf("%d, %v", p, err)
	}
	if p, err := ParseToken(""); p != 0 || err != nil {
		t.Errorf("%d, %v", p, err)
	}
}
