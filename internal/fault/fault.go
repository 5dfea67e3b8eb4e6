// Package fault is the closed set of ways in which Purser says no.
//
// A fault keeps apart what a client may read (Kind, Reason, Message and the details) and the cause, which is for the
// log alone. Deciders and services return faults; package rpc turns them into gRPC statuses, and statuses of other
// services back into faults, in one place.
package fault

import (
	"errors"
	"fmt"
	"time"

	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// Kind is what a caller can do about a fault. Each corresponds to one gRPC status code.
type Kind uint8

const (
	Internal         Kind = iota // a bug of ours
	Invalid                      // the request can never work
	NotFound                     // what it names does not exist
	Exists                       // the id is taken by something else
	Precondition                 // not in this state
	Aborted                      // somebody was faster; read again and retry
	Exhausted                    // too large, or too many
	Unavailable                  // later
	DeadlineExceeded             // the caller's time is up; the outcome may be unknown
	Cancelled                    // the caller went away
	Unimplemented                // no such method
)

// Fault is an error with a meaning to clients.
type Fault struct {
	Kind   Kind
	Reason typev1.ErrorReason
	// Message is read by clients: a sentence without personal data and without a dependency's own text.
	Message string
	// Fields are the fields at fault; Kind Invalid only.
	Fields []Field
	// Resource is what was not found or exists already, as "order" and "7".
	ResourceType, ResourceName string
	// Allowed are the next steps that would be legal; Kind Precondition only.
	Allowed []string
	// RetryAfter is how long to wait before trying again; Kind Unavailable only.
	RetryAfter time.Duration
	// Err is the cause, never shown to clients.
	Err error
}

// Field is one broken rule of a request.
type Field struct {
	Path        string // as in "lines[0].quantity"
	Description string
}

func (f *Fault) Error() string {
	if f.Err != nil {
		return f.Message + ": " + f.Err.Error()
	}
	return f.Message
}

func (f *Fault) Unwrap() error { return f.Err }

// Of returns the fault in err's chain, or nil.
func Of(err error) *Fault {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	return nil
}

// Is tells whether err is a fault for this reason.
func Is(err error, reason typev1.ErrorReason) bool {
	f := Of(err)
	return f != nil && f.Reason == reason
}

// InvalidField says that one field breaks a rule.
func InvalidField(path, format string, args ...any) *Fault {
	d := fmt.Sprintf(format, args...)
	return &Fault{
		Kind: Invalid, Reason: typev1.ErrorReason_ERROR_REASON_INVALID_FIELD,
		Message: path + ": " + d, Fields: []Field{{Path: path, Description: d}},
	}
}

// Missing says that a resource does not exist.
func Missing(reason typev1.ErrorReason, resourceType, name string) *Fault {
	return &Fault{
		Kind: NotFound, Reason: reason, Message: fmt.Sprintf("%s %q does not exist", resourceType, name),
		ResourceType: resourceType, ResourceName: name,
	}
}

// Taken says that an id is in use by something else.
func Taken(reason typev1.ErrorReason, resourceType, name string) *Fault {
	return &Fault{
		Kind: Exists, Reason: reason, Message: fmt.Sprintf("%s %q exists already", resourceType, name),
		ResourceType: resourceType, ResourceName: name,
	}
}

// Refused says that a step is not allowed in this state.
func Refused(reason typev1.ErrorReason, format string, args ...any) *Fault {
	return &Fault{Kind: Precondition, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Down says that a dependency can't be reached; the cause is kept for the log.
func Down(reason typev1.ErrorReason, message string, cause error) *Fault {
	return &Fault{Kind: Unavailable, Reason: reason, Message: message, RetryAfter: time.Second, Err: cause}
}
