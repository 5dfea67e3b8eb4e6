package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	domain       = "purser"
	reasonPrefix = "ERROR_REASON_"
	// retryAfter is what clients are told to wait where nothing better is known.
	retryAfter = time.Second
)

// codeOf is the one table of kinds and codes.
var codeOf = map[fault.Kind]codes.Code{
	fault.Internal:         codes.Internal,
	fault.Invalid:          codes.InvalidArgument,
	fault.NotFound:         codes.NotFound,
	fault.Exists:           codes.AlreadyExists,
	fault.Precondition:     codes.FailedPrecondition,
	fault.Aborted:          codes.Aborted,
	fault.Exhausted:        codes.ResourceExhausted,
	fault.Unavailable:      codes.Unavailable,
	fault.DeadlineExceeded: codes.DeadlineExceeded,
	fault.Cancelled:        codes.Canceled,
	fault.Unimplemented:    codes.Unimplemented,
}

// plain is what an error of each kind means where only its code is known: what the transport says is not for clients to
// read. What no transport says, and no service of ours without a reason, counts as a fault of ours.
var plain = map[fault.Kind]struct {
	reason  typev1.ErrorReason
	message string
}{
	fault.Internal:         {typev1.ErrorReason_ERROR_REASON_INTERNAL, "internal error"},
	fault.Invalid:          {typev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "the request is not a valid one"},
	fault.NotFound:         {typev1.ErrorReason_ERROR_REASON_SERVICE_NOT_FOUND, "there is no such service here"},
	fault.Aborted:          {typev1.ErrorReason_ERROR_REASON_CONTENTION, "somebody else changed it at the same time; try again"},
	fault.Exhausted:        {typev1.ErrorReason_ERROR_REASON_MESSAGE_TOO_LARGE, "the message is too large"},
	fault.Unavailable:      {typev1.ErrorReason_ERROR_REASON_DEPENDENCY_UNAVAILABLE, "a service that is needed can't be reached"},
	fault.DeadlineExceeded: {typev1.ErrorReason_ERROR_REASON_DEADLINE_EXCEEDED, "the deadline has passed"},
	fault.Cancelled:        {typev1.ErrorReason_ERROR_REASON_CANCELLED, "the call was cancelled"},
	fault.Unimplemented:    {typev1.ErrorReason_ERROR_REASON_UNIMPLEMENTED, "there is no such method here"},
}

// of is a fault of a kind of which no more is known.
func of(kind fault.Kind, cause error) *fault.Fault {
	if _, ok := plain[kind]; !ok {
		kind = fault.Internal
	}
	f := &fault.Fault{Kind: kind, Reason: plain[kind].reason, Message: plain[kind].message, Err: cause}
	if kind == fault.Unavailable {
		f.RetryAfter = retryAfter
	}
	return f
}

// toStatus turns an error into the status that a client gets: a fault's own words, or fixed ones, and never the text of
// a driver, of the store or of another service.
func toStatus(ctx context.Context, err error) *status.Status {
	f := toFault(ctx, err)
	s := status.New(codeOf[f.Kind], f.Message)
	withDetails, derr := s.WithDetails(details(f)...)
	if derr != nil { // details that can't be encoded are a bug, and no reason to lose the status
		return s
	}
	return withDetails
}

// toFault finds the meaning of any error.
func toFault(ctx context.Context, err error) *fault.Fault {
	var conflict *eventlog.ConflictError
	switch {
	case fault.Of(err) != nil:
		return fault.Of(err)
	case errors.Is(err, eventlog.ErrTooLarge):
		return &fault.Fault{Kind: fault.Exhausted, Reason: typev1.ErrorReason_ERROR_REASON_MESSAGE_TOO_LARGE, Message: "what the request would store is too large", Err: err}
	case errors.As(err, &conflict):
		return of(fault.Aborted, err)
	case errors.Is(ctx.Err(), context.Canceled), errors.Is(err, context.Canceled):
		return of(fault.Cancelled, err)
	case errors.Is(err, eventlog.ErrUnavailable):
		return fault.Down(typev1.ErrorReason_ERROR_REASON_DEPENDENCY_UNAVAILABLE, "the event store can't be reached", err)
	case errors.Is(err, eventlog.ErrNewerVersion), errors.Is(err, eventlog.ErrUnknownType): // during an upgrade: another replica can
		return fault.Down(typev1.ErrorReason_ERROR_REASON_DEPENDENCY_UNAVAILABLE, "this server is older than what was written by a newer one", err)
	case postgresDown(err):
		return fault.Down(typev1.ErrorReason_ERROR_REASON_DEPENDENCY_UNAVAILABLE, "the database can't be reached", err)
	case errors.Is(err, context.DeadlineExceeded):
		return of(fault.DeadlineExceeded, err)
	}
	// Of grpc's own services, such as health. One deeper in the chain is about another call than this: of the event store,
	// say. Those of our own services are faults by the time they arrive here.
	if s, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return of(kindOf(s.GRPCStatus().Code()), err)
	}
	return of(fault.Internal, err)
}

// kindOf is the inverse of codeOf; a code that has no kind is a fault of ours.
func kindOf(c codes.Code) fault.Kind {
	for kind, code := range codeOf {
		if code == c {
			return kind
		}
	}
	return fault.Internal
}

// postgresDown tells errors of the connection to Postgres, and of a server that is stopping or full, from mistakes of ours.
func postgresDown(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		// Class 08 is the connection, 53 the server's resources, 57 an operator's or a time-out's doing.
		return strings.HasPrefix(pg.Code, "08") || strings.HasPrefix(pg.Code, "53") || strings.HasPrefix(pg.Code, "57")
	}
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) && !errors.Is(err, context.DeadlineExceeded) || pgconn.SafeToRetry(err)
}

// details are what a client's program reads.
func details(f *fault.Fault) []protoadapt.MessageV1 {
	all := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: strings.TrimPrefix(f.Reason.String(), reasonPrefix), Domain: domain}}
	if len(f.Fields) > 0 {
		bad := &errdetails.BadRequest{}
		for _, field := range f.Fields {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: field.Path, Description: field.Description})
		}
		all = append(all, bad)
	}
	if f.Kind == fault.Precondition {
		pre := &errdetails.PreconditionFailure{}
		for _, step := range f.Allowed {
			pre.Violations = append(pre.Violations, &errdetails.PreconditionFailure_Violation{Type: allowedStep, Subject: step, Description: fmt.Sprintf("%s is possible now", step)})
		}
		if len(pre.Violations) > 0 {
			all = append(all, pre)
		}
	}
	if f.ResourceType != "" {
		all = append(all, &errdetails.ResourceInfo{ResourceType: f.ResourceType, ResourceName: f.ResourceName})
	}
	if f.Kind == fault.Unavailable {
		after := f.RetryAfter
		if after == 0 {
			after = retryAfter
		}
		all = append(all, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	}
	return all
}

// allowedStep is the type of a PreconditionFailure's violation that names a step which would be legal.
const allowedStep = "ALLOWED_STEP"

// fromStatus turns the error of a call to another service, of this name, back into a fault.
func fromStatus(service string, err error) error {
	var peers interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &peers) || peers.GRPCStatus().Code() == codes.OK {
		return err
	}
	s := peers.GRPCStatus() // and not status.FromError, whose message has what the transport's retries wrapped around it
	f := of(kindOf(s.Code()), err)
	if f.Kind == fault.Unavailable {
		f.Message = fmt.Sprintf("the %s service can't be reached", service)
	}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == domain { // it is a service of ours that speaks
				f.Kind, f.Message = kindOf(s.Code()), s.Message()
				f.Reason = typev1.ErrorReason(typev1.ErrorReason_value[reasonPrefix+d.GetReason()])
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				f.Fields = append(f.Fields, fault.Field{Path: v.GetField(), Description: v.GetDescription()})
			}
		case *errdetails.PreconditionFailure:
			for _, v := range d.GetViolations() {
				f.Allowed = append(f.Allowed, v.GetSubject())
			}
		case *errdetails.ResourceInfo:
			f.ResourceType, f.ResourceName = d.GetResourceType(), d.GetResourceName()
		case *errdetails.RetryInfo:
			f.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	return f
}

func reasonOf(s *status.Status) string {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}
