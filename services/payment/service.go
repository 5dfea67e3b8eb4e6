// Package payment serves PaymentService: it moves money through a gateway and appends to payment-*.
//
// Every call to the gateway stands between two appends: the intent before it and the outcome after it, both under the
// request id of the command that meant it. The process may die anywhere, and a repeat of the command, on any replica,
// takes up where the log ends:
//
//   - before the intent: nothing happened, and the repeat is the first;
//   - after the intent, wherever the call got to: the gateway is asked by our reference, and if it knows nothing, the
//     same call is made under the same key, which has one effect however often it is made;
//   - after the outcome: the repeat is answered from it.
//
// A call that the gateway certainly did not take leaves the intent alone and is UNAVAILABLE. A call whose answer is lost
// is recorded as unknown, and nobody guesses: ReconcilePayment, or a void, finds out. There is no background work here;
// what is unknown is on the saga's list.
package payment

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/daemon"
	"github.com/purserhq/purser/internal/domain/payment"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/rpc"
	"github.com/purserhq/purser/internal/secret"
	paymentv1 "github.com/purserhq/purser/proto/purser/payment/v1"
	"github.com/purserhq/purser/services/payment/gateway"
)

// Config says where the service listens, as host:port, and how long it waits for the gateway.
type Config struct {
	GRPCAddr, HTTPAddr string
	// GatewayTimeout bounds each call to the gateway, also when the caller would wait for longer or for less; 0 is
	// five seconds.
	GatewayTimeout time.Duration
}

// New returns the service. It is ready while the event log and the gateway answer.
func New(cfg Config, log *eventlog.Log, s *secret.Secret, gw gateway.Gateway, logger *slog.Logger, m *rpc.Metrics) daemon.Service {
	g := rpc.NewServer("payment", logger, m)
	paymentv1.RegisterPaymentServiceServer(g, &server{
		payments: aggregate.New[payment.State](log, eventschema.Payment, s, time.Now),
		gateway:  guard(gw, cfg.GatewayTimeout, logger),
		clock:    time.Now,
		log:      logger,
	})
	return daemon.Service{
		Name: "payment", GRPC: g, GRPCAddr: cfg.GRPCAddr, HTTPAddr: cfg.HTTPAddr,
		Ready: func(ctx context.Context) error { return errors.Join(log.Ping(ctx), gw.Ping(ctx)) },
	}
}
