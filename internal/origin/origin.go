// Package origin carries who asks, and on account of what, from a request to the events it causes.
package origin

import (
	"context"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/purserhq/purser/internal/fault"
)

// Origin is recorded in the metadata of every event that a request causes.
type Origin struct {
	// Actor is who asked: the request metadata `purser-actor`; "anonymous" where absent.
	Actor string
	// CorrelationID is shared by everything that follows from one outside request.
	CorrelationID string
	// CausationID is the id of the event that led to this request; empty for one from outside.
	CausationID string
	// Traceparent is the W3C trace context of the request; empty where there is none.
	Traceparent string
}

const (
	// Anonymous is the actor of a request that names none.
	Anonymous = "anonymous"
	// Saga is the actor of what the saga does.
	Saga = "saga"
)

type key struct{}

// With returns a context that carries o.
func With(ctx context.Context, o Origin) context.Context {
	return context.WithValue(ctx, key{}, o)
}

// From returns the origin that ctx carries, with Actor never empty.
func From(ctx context.Context) Origin {
	o, _ := ctx.Value(key{}).(Origin)
	if o.Actor == "" {
		o.Actor = Anonymous
	}
	return o
}

// maxLength bounds each part of an origin, in bytes.
const maxLength = 128

// Check refuses an origin that can't be stored with every event: one that is too long, or no text that can be shown.
func (o Origin) Check() error {
	for name, value := range map[string]string{
		"purser-actor": o.Actor, "purser-correlation-id": o.CorrelationID, "purser-causation-id": o.CausationID, "traceparent": o.Traceparent,
	} {
		if len(value) > maxLength {
			return fault.InvalidField(name, "request metadata of more than %d bytes", maxLength)
		}
		if !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
			return fault.InvalidField(name, "request metadata with control characters, or not in UTF-8")
		}
	}
	return nil
}
