package rpc

import (
	"context"
	"crypto/rand"
	"encoding/hex"

	"github.com/google/uuid"
	"google.golang.org/grpc/metadata"

	"github.com/purserhq/purser/internal/origin"
)

// The request metadata that carries an origin; traceparent is that of the W3C Trace Context.
const (
	actorKey       = "purser-actor"
	correlationKey = "purser-correlation-id"
	causationKey   = "purser-causation-id"
	traceparentKey = "traceparent"
)

// withOrigin reads who asks from the request metadata. A request that belongs to nothing else begins something of its own.
func withOrigin(ctx context.Context) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	o := origin.Origin{
		Actor: first(md, actorKey), CorrelationID: first(md, correlationKey),
		CausationID: first(md, causationKey), Traceparent: first(md, traceparentKey),
	}
	if o.CorrelationID == "" {
		o.CorrelationID = uuid.NewString()
	}
	if o.Traceparent == "" {
		o.Traceparent = newTraceparent()
	}
	return origin.With(ctx, o)
}

func first(md metadata.MD, key string) string {
	if v := md.Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}

// withMetadata passes the origin on to another service.
func withMetadata(ctx context.Context) context.Context {
	o := origin.From(ctx)
	for key, value := range map[string]string{
		actorKey: o.Actor, correlationKey: o.CorrelationID, causationKey: o.CausationID, traceparentKey: o.Traceparent,
	} {
		if value != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, key, value)
		}
	}
	return ctx
}

// newTraceparent begins a trace that nobody has asked to be sampled.
func newTraceparent() string {
	var id [24]byte
	_, _ = rand.Read(id[:]) // never fails
	return "00-" + hex.EncodeToString(id[:16]) + "-" + hex.EncodeToString(id[16:]) + "-00"
}
