package rpc

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// A fault that crosses the wire is the same fault on the other side, but for its cause.
func TestFaultsCrossTheWire(t *testing.T) {
	invalid := fault.InvalidField("lines[0].quantity", "must be from 1 to %d", 9999)
	invalid.Fields = append(invalid.Fields, fault.Field{Path: "customer_id", Description: "must be given"})
	illegal := fault.Refused(typev1.ErrorReason_ERROR_REASON_ILLEGAL_TRANSITION, "order 7 is confirmed")
	illegal.Allowed = []string{"CancelOrder", "ChangeDeliveryAddress"}
	later := fault.Down(typev1.ErrorReason_ERROR_REASON_PROJECTION_LAG, "not yet", errors.New("secret"))
	later.RetryAfter = 250 * time.Millisecond
	crossed := map[fault.Kind]bool{}
	for _, c := range []struct {
		fault *fault.Fault
		code  codes.Code
	}{
		{&fault.Fault{Kind: fault.Internal, Reason: typev1.ErrorReason_ERROR_REASON_INTERNAL, Message: "internal error", Err: errors.New("secret")}, codes.Internal},
		{invalid, codes.InvalidArgument},
		{fault.Missing(typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND, "order", "7"), codes.NotFound},
		{fault.Taken(typev1.ErrorReason_ERROR_REASON_PRODUCT_EXISTS, "product", "mug"), codes.AlreadyExists},
		{illegal, codes.FailedPrecondition},
		{fault.Refused(typev1.ErrorReason_ERROR_REASON_PAYMENT_VOIDED, "given up"), codes.FailedPrecondition},
		{&fault.Fault{Kind: fault.Aborted, Reason: typev1.ErrorReason_ERROR_REASON_ETAG_MISMATCH, Message: "the etag is another"}, codes.Aborted},
		{&fault.Fault{Kind: fault.Exhausted, Reason: typev1.ErrorReason_ERROR_REASON_MESSAGE_TOO_LARGE, Message: "too large"}, codes.ResourceExhausted},
		{later, codes.Unavailable},
		{&fault.Fault{Kind: fault.DeadlineExceeded, Reason: typev1.ErrorReason_ERROR_REASON_DEADLINE_EXCEEDED, Message: "too late"}, codes.DeadlineExceeded},
		{&fault.Fault{Kind: fault.Cancelled, Reason: typev1.ErrorReason_ERROR_REASON_CANCELLED, Message: "gone"}, codes.Canceled},
		{&fault.Fault{Kind: fault.Unimplemented, Reason: typev1.ErrorReason_ERROR_REASON_UNIMPLEMENTED, Message: "no method"}, codes.Unimplemented},
	} {
		s := toStatus(t.Context(), fmt.Errorf("handle: %w", c.fault))
		if s.Code() != c.code || s.Code() != codeAdvised(t, c.fault.Reason) || s.Message() != c.fault.Message || len(infos(s)) != 1 {
			t.Errorf("%v became %v with %v", c.fault, s, s.Details())
		}
		got := fault.Of(fromStatus("test", s.Err()))
		if got == nil {
			t.Fatalf("%v came back as no fault", c.fault)
		}
		want := *c.fault
		got.Err, want.Err = nil, nil
		if !reflect.DeepEqual(*got, want) {
			t.Errorf("%+v came back as %+v", want, *got)
		}
		crossed[c.fault.Kind] = true
	}
	if len(crossed) != len(codeOf) {
		t.Errorf("%d kinds were tried, of %d", len(crossed), len(codeOf))
	}
}

func TestDetailsOfUnavailable(t *testing.T) {
	s := toStatus(t.Context(), &fault.Fault{Kind: fault.Unavailable, Reason: typev1.ErrorReason_ERROR_REASON_GATEWAY_UNAVAILABLE, Message: "down"})
	for _, d := range s.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			if r.GetRetryDelay().AsDuration() != retryAfter {
				t.Errorf("retry after %s", r.GetRetryDelay().AsDuration())
			}
			return
		}
	}
	t.Errorf("no RetryInfo in %v", s.Details())
}

// Whatever a handler returns, the client reads words of ours and one reason.
func TestErrorsThatAreNoFaults(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	const secret = "of a driver"
	for name, c := range map[string]struct {
		ctx    context.Context
		err    error
		code   codes.Code
		reason string
	}{
		"a bug":                         {err: errors.New(secret), code: codes.Internal, reason: "INTERNAL"},
		"a panic":                       {err: recovered(func() error { panic(secret) }), code: codes.Internal, reason: "INTERNAL"},
		"store down":                    {err: fmt.Errorf("%s: %w", secret, eventlog.ErrUnavailable), code: codes.Unavailable, reason: "DEPENDENCY_UNAVAILABLE"},
		"store down until the deadline": {err: fmt.Errorf("%w: %w", eventlog.ErrUnavailable, context.DeadlineExceeded), code: codes.Unavailable, reason: "DEPENDENCY_UNAVAILABLE"},
		"event of a newer version":      {err: fmt.Errorf("%s: %w", secret, eventlog.ErrNewerVersion), code: codes.Unavailable, reason: "DEPENDENCY_UNAVAILABLE"},
		"event of an unknown type":      {err: fmt.Errorf("%s: %w", secret, eventlog.ErrUnknownType), code: codes.Unavailable, reason: "DEPENDENCY_UNAVAILABLE"},
		"event too large":               {err: fmt.Errorf("%s: %w", secret, eventlog.ErrTooLarge), code: codes.ResourceExhausted, reason: "MESSAGE_TOO_LARGE"},
		"conflict":                      {err: fmt.Errorf("%s: %w", secret, &eventlog.ConflictError{}), code: codes.Aborted, reason: "CONTENTION"},
		"caller gone":                   {ctx: cancelled, err: errors.New(secret), code: codes.Canceled, reason: "CANCELLED"},
		"late":                          {err: fmt.Errorf("%s: %w", secret, context.DeadlineExceeded), code: codes.DeadlineExceeded, reason: "DEADLINE_EXCEEDED"},
		"database stopping":             {err: &pgconn.PgError{Code: "57P01", Message: secret}, code: codes.Unavailable, reason: "DEPENDENCY_UNAVAILABLE"},
		"database full":                 {err: &pgconn.PgError{Code: "53300", Message: secret}, code: codes.Unavailable, reason: "DEPENDENCY_UNAVAILABLE"},
		"a mistake in SQL":              {err: &pgconn.PgError{Code: "42601", Message: secret}, code: codes.Internal, reason: "INTERNAL"},
		"a status of the store's":       {err: fmt.Errorf("append: %w", status.Error(codes.InvalidArgument, secret)), code: codes.Internal, reason: "INTERNAL"},
		"health of no service":          {err: status.Error(codes.NotFound, secret), code: codes.NotFound, reason: "SERVICE_NOT_FOUND"},
		"a method that is not made":     {err: status.Error(codes.Unimplemented, secret), code: codes.Unimplemented, reason: "UNIMPLEMENTED"},
		"a status without a kind":       {err: status.Error(codes.DataLoss, secret), code: codes.Internal, reason: "INTERNAL"},
	} {
		if c.ctx == nil {
			c.ctx = t.Context()
		}
		s := toStatus(c.ctx, c.err)
		if s.Code() != c.code || len(infos(s)) != 1 || infos(s)[0] != c.reason || s.Message() == "" || strings.Contains(s.Message(), secret) {
			t.Errorf("%s: %v with reason %v, want %v with %s", name, s, infos(s), c.code, c.reason)
		}
	}
}

// A status that the transport made has a reason and words of ours too, on its way back and when it is passed on.
func TestStatusesOfTheTransport(t *testing.T) {
	const words = "of the transport"
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		s := status.New(code, words)
		if code%2 == 0 { // as from a proxy that explains itself in its own way
			s, _ = s.WithDetails(&errdetails.ErrorInfo{Reason: "ORDER_NOT_FOUND", Domain: "example.com"})
		}
		f := fault.Of(fromStatus("test", s.Err()))
		if f == nil || f.Message == "" || strings.Contains(f.Message, words) ||
			f.Reason == typev1.ErrorReason_ERROR_REASON_UNSPECIFIED || f.Reason == typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND {
			t.Errorf("%v came back as %+v", code, f)
			continue
		}
		if codeOf[f.Kind] != code && f.Kind != fault.Internal {
			t.Errorf("%v came back as %v", code, codeOf[f.Kind])
		}
		if f.Kind == fault.Unavailable && (f.RetryAfter == 0 || f.Message != "the test service can't be reached") {
			t.Errorf("UNAVAILABLE came back as %+v", f)
		}
	}
	// Nobody of ours says these without a reason, so they decide nothing.
	for _, code := range []codes.Code{codes.FailedPrecondition, codes.AlreadyExists} {
		if f := fault.Of(fromStatus("test", status.Error(code, words))); f.Kind != fault.Internal {
			t.Errorf("%v without a reason came back as %v", code, codeOf[f.Kind])
		}
	}
	if err := errors.New("no status"); fromStatus("test", err) != err || fromStatus("test", nil) != nil {
		t.Error("what is no status was changed")
	}
}

func TestAReasonOfANewerPeerKeepsItsWords(t *testing.T) {
	s, err := status.New(codes.FailedPrecondition, "words").WithDetails(&errdetails.ErrorInfo{Reason: "NEWER", Domain: domain})
	if err != nil {
		t.Fatal(err)
	}
	if f := fault.Of(fromStatus("test", s.Err())); f.Kind != fault.Precondition || f.Message != "words" {
		t.Errorf("%+v", f)
	}
}

// infos are the reasons of a status: there should be one.
func infos(s *status.Status) []string {
	var reasons []string
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == domain {
			reasons = append(reasons, info.GetReason())
		}
	}
	return reasons
}
