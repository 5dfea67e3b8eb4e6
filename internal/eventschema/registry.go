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
// a new value of an enum does need one. testdata/ has an event of every version ever stored, which tests read, fold and
// keep from being changed. docs/schema-evolution.md says how to change an event.
package eventschema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

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
	latest    map[string]int // version of each event type, also of those that are no longer written
}

var _ eventlog.Schema = (*Registry)(nil)

type current struct {
	message protoreflect.MessageType
	version int
}

// New returns the registry of all of Purser's events. A build whose tables have a gap, so that it could not read some
// event that may be stored, panics here: at its start, and in every test.
func New() *Registry {
	r, err := newRegistry(events(), upcasters())
	if err != nil {
		panic(err)
	}
	return r
}

func newRegistry(events []event, upcasters map[schema]upcaster) (*Registry, error) {
	r := &Registry{current: make(map[string]current, len(events)), upcasters: upcasters, latest: make(map[string]int, len(events))}
	for old := range upcasters {
		r.latest[old.eventType] = max(r.latest[old.eventType], old.version)
	}
	for _, e := range events {
		m := e.message.ProtoReflect().Type()
		name := string(m.Descriptor().Name())
		if other, taken := r.current[name]; taken {
			return nil, fmt.Errorf("event type %s is both %s and %s",
				name, other.message.Descriptor().FullName(), m.Descriptor().FullName())
		}
		if e.version < 1 {
			return nil, fmt.Errorf("%s has version %d: versions begin at 1", name, e.version)
		}
		r.current[name] = current{message: m, version: e.version}
		r.latest[name] = max(r.latest[name], e.version)
	}
	return r, r.checkChains()
}

// Knows implements [eventlog.Schema].
func (r *Registry) Knows(eventType string) bool { return r.latest[eventType] > 0 }

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
	switch latest, known := r.latest[eventType]; {
	case !known:
		return nil, fmt.Errorf("%w: %s", eventlog.ErrUnknownType, eventType)
	case version > latest:
		return nil, fmt.Errorf("%w: %s, known up to %d", eventlog.ErrNewerVersion, s, latest)
	case version < 1:
		return nil, fmt.Errorf("%s has no version %d", eventType, version)
	}
	if _, old := r.upcasters[s]; old {
		return r.decodeOld(s, contentType, data)
	}
	m, err := r.current[eventType].decode(contentType, data)
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
		return nil, fmt.Errorf("%s is not stored as %q", s, contentType)
	}
	fields, err := decodeFields(data)
	if err != nil {
		return nil, &malformedError{s, err}
	}
	now, err := r.upcast(stored{s, fields})
	if err != nil {
		return nil, err
	}
	messages := make([]proto.Message, len(now))
	for i, n := range now {
		rewritten, err := json.Marshal(n.fields)
		if err != nil {
			return nil, &malformedError{s, err}
		}
		if messages[i], err = r.current[n.schema.eventType].decode(ContentTypeJSON, rewritten); err != nil {
			return nil, fmt.Errorf("upcast from %s: %w", s, err)
		}
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
	if _, err := d.Token(); fields == nil || err != io.EOF {
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
