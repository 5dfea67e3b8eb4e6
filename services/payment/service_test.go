package payment

import (
	"net"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/purserhq/purser/internal/rpc"
	paymentv1 "github.com/purserhq/purser/proto/purser/payment/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// The service as clients see it: over gRPC, with validation and errors as they travel.
func TestOverTheWire(t *testing.T) {
	w := newWorld(t, 0)
	metrics := rpc.NewMetrics(prometheus.NewRegistry())
	service := New(Config{}, w.log, w.secret, w.bank, testLogger(t), metrics)
	if err := service.Ready(t.Context()); err != nil {
		t.Fatalf("not ready: %v", err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := service.GRPC.Serve(lis); err != nil {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer service.GRPC.Stop()
	conn, err := rpc.Dial(lis.Addr().String(), "payment", testLogger(t), metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := paymentv1.NewPaymentServiceClient(conn)

	order := uuid.NewString()
	for name, broken := range map[string]func(*paymentv1.AuthorizePaymentRequest){
		"negative amount": func(r *paymentv1.AuthorizePaymentRequest) { r.Amount.AmountMinor = -1 },
		"no amount":       func(r *paymentv1.AuthorizePaymentRequest) { r.Amount = nil },
		"no method":       func(r *paymentv1.AuthorizePaymentRequest) { r.PaymentMethod = "" },
		"bad order id":    func(r *paymentv1.AuthorizePaymentRequest) { r.OrderId = "a/b" },
		"no request id":   func(r *paymentv1.AuthorizePaymentRequest) { r.RequestId = "" },
	} {
		req := authorizeRequest(order, "pm_card_visa")
		broken(req)
		_, err := client.AuthorizePayment(t.Context(), req)
		t.Log(name)
		wantFault(t, err, typev1.ErrorReason_ERROR_REASON_INVALID_FIELD)
	}

	req := authorizeRequest(order, "pm_card_visa")
	if r, err := client.AuthorizePayment(t.Context(), req); err != nil || r.GetState() != authorized {
		t.Fatalf("authorize: %v, %v", r, err)
	}
	req.Amount.AmountMinor++
	_, err = client.AuthorizePayment(t.Context(), req)
	wantFault(t, err, typev1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED)
	if r, err := client.VoidPayment(t.Context(), voidRequest(order)); err != nil || r.GetState() != voided {
		t.Fatalf("void: %v, %v", r, err)
	}
	_, err = client.AuthorizePayment(t.Context(), authorizeRequest(order, "pm_card_visa"))
	wantFault(t, err, typev1.ErrorReason_ERROR_REASON_PAYMENT_VOIDED)
	w.agree(t, order, voided)
}
