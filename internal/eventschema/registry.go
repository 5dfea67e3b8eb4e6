// Package eventschema says what stored events mean: which message a type of event is, which version of its schema this
// build writes, and how events of older versions are read.
//
// It promises that every event ever stored stays readable: as the messages of today, whatever its version. An event of a
// version newer than this build is told apart (eventlog.ErrNewerVersion) from one of an unknown type
// (eventlog.ErrUnknownType).
//
// How: an event's type is the bare name of its message (OrderPlaced), its data the message as protobuf JSON with the names
// of the proto file, so that the store's own tools can read it. What is stored in an old version goes through a chain of
// upcasters (upcast.go), which work on the JSON: the message of an old version no longer exists. Fields that this build
// does not know are ignored, so adding a field needs no new version, unless its absence means something else than its zero;
// a new value of an enum does need one. testdata/ has an event of every version ever stored, which a test reads.
package eventschema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/purserhq/purser/internal/eventlog"
)

// The content types that events are stored under. Everything that is not JSON is an octet stream to the event store; here
// it is the binary encoding of the message.
const (
	ContentTypeJSON   = "application/json"
	ContentTypeBinary = "application/octet-stream"
)

// Registry knows all types of events. It is safe for concurrent use.
type Registry struct {
	current   map[string]current // by event type
	upcasters map[schema]upcaster
	known     map[string]bool // event types, also those that are no longer written
}

var _ eventlog.Schema = (*Registry)(nil)

type current struct {
	message protoreflect.MessageType
	version int
}

// New returns the registry of all of Purser's events.
func New() *Registry {
	r, err := newRegistry(events(), upcasters())
	if err != nil {
		panic(err) // the tables of this package contradict themselves; every test would show it
	}
	return r
}

func newRegistry(events []event, upcasters map[schema]upcaster) (*Registry, error) {
	r := &Registry{current: make(map[string]current, len(events)), upcasters: upcasters, known: make(map[string]bool, len(events))}
	for old := range upcasters {
		r.known[old.eventType] = true
	}
	for _, e := range events {
		m := e.message.ProtoReflect().Type()
		name := string(m.Descriptor().Name())
		if other, taken := r.current[name]; taken {
			return nil, fmt.Errorf("event type %s is both %s and %s",
				name, other.message.Descriptor().FullName(), m.Descriptor().FullName())
		}
		for v := 1; v < e.version; v++ {
			if _, ok := upcasters[schema{name, v}]; !ok {
				return nil, fmt.Errorf("no upcaster for version %d of %s", v, name)
			}
		}
		if _, ok := upcasters[schema{name, e.version}]; ok {
			return nil, fmt.Errorf("an upcaster for version %d of %s, which is the current one", e.version, name)
		}
		r.current[name], r.known[name] = current{message: m, version: e.version}, true
	}
	return r, nil
}

// Knows implements [eventlog.Schema].
func (r *Registry) Knows(eventType string) bool { return r.known[eventType] }

// Encode implements [eventlog.Schema].
func (r *Registry) Encode(m proto.Message) (eventlog.Encoded, error) {
	d := m.ProtoReflect().Descriptor()
	c, ok := r.current[string(d.Name())]
	if !ok || c.message.Descriptor().FullName() != d.FullName() {
		return eventlog.Encoded{}, fmt.Errorf("%w: %s", eventlog.ErrUnknownType, d.FullName())
	}
	data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return eventlog.Encoded{}, fmt.Errorf("encode %s: %w", d.Name(), err)
	}
	return eventlog.Encoded{Type: string(d.Name()), Version: c.version, ContentType: ContentTypeJSON, Data: data}, nil
}

// Decode implements [eventlog.Schema]. The text of its errors never quotes the data, which may be personal.
func (r *Registry) Decode(eventType string, version int, contentType string, data []byte) ([]proto.Message, error) {
	s := schema{eventType, version}
	if _, old := r.upcasters[s]; old {
		return r.decodeOld(s, contentType, data)
	}
	c, ok := r.current[eventType]
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: %s", eventlog.ErrUnknownType, eventType)
	case version > c.version:
		return nil, fmt.Errorf("%w: %s version %d, known up to %d", eventlog.ErrNewerVersion, eventType, version, c.version)
	case version < c.version:
		return nil, fmt.Errorf("%s has no version %d", eventType, version)
	}
	m, err := c.decode(contentType, data)
	if err != nil {
		return nil, err
	}
	return []proto.Message{m}, nil
}

func (c current) decode(contentType string, data []byte) (proto.Message, error) {
	m := c.message.New().Interface()
	var err error
	switch contentType {
	case ContentTypeJSON:
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, m)
	case ContentTypeBinary:
		err = proto.Unmarshal(data, m)
	default:
		return nil, fmt.Errorf("unknown content type %q", contentType)
	}
	if err != nil {
		return nil, &malformedError{schema{string(c.message.Descriptor().Name()), c.version}, err}
	}
	return m, nil
}

// decodeOld reads an event of a schema that is no longer written.
func (r *Registry) decodeOld(s schema, contentType string, data []byte) ([]proto.Message, error) {
	if contentType != ContentTypeJSON {
		return nil, fmt.Errorf("%s version %d is not stored as %q", s.eventType, s.version, contentType)
	}
	fields, err := decodeFields(data)
	if err != nil {
		return nil, &malformedError{s, err}
	}
	var messages []proto.Message
	for _, now := range r.upcast(stored{s, fields}) {
		rewritten, err := json.Marshal(now.fields)
		if err != nil {
			return nil, &malformedError{s, err}
		}
		more, err := r.Decode(now.schema.eventType, now.schema.version, ContentTypeJSON, rewritten)
		if err != nil {
			return nil, fmt.Errorf("upcast from %s version %d: %w", s.eventType, s.version, err)
		}
		messages = append(messages, more...)
	}
	return messages, nil
}

func decodeFields(data []byte) (map[string]any, error) {
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // a float would round large integers
	if err := d.Decode(&fields); err != nil {
		return nil, err
	}
	if fields == nil || d.More() {
		return nil, errors.New("not one JSON object")
	}
	return fields, nil
}

// malformedError: the data is not what its schema says. Parsers quote what they can't read, so the cause is left out of
// the text.
type malformedError struct {
	schema schema
	cause  error
}

func (e *malformedError) Error() string {
	return fmt.Sprintf("the data is no %s of version %d", e.schema.eventType, e.schema.version)
}

func (e *malformedError) Unwrap() error { return e.cause }
