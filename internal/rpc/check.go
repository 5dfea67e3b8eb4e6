package rpc

import (
	"bytes"
	"fmt"
	"strings"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/purserhq/purser/internal/fault"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// check enforces the size, the rules stated in the .proto files, and the one that holds for every text; and makes equal what
// is equal.
func check(m proto.Message) error {
	wire, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	if n := len(wire); n > maxMessage {
		return &fault.Fault{
			Kind: fault.Exhausted, Reason: typev1.ErrorReason_ERROR_REASON_MESSAGE_TOO_LARGE,
			Message: fmt.Sprintf("the request has %d bytes, more than %d", n, maxMessage),
		}
	}
	if bytes.IndexByte(wire, 0) >= 0 { // most requests have none, and so no text with one
		if err := protorange.Range(m.ProtoReflect(), refuseNUL); err != nil {
			return err
		}
	}
	if err := protovalidate.Validate(m); err != nil {
		return err
	}
	spellRequestID(m.ProtoReflect())
	return nil
}

// spellRequestID writes a request's id, which is a UUID, the one way in which it is compared: in lower case.
func spellRequestID(m protoreflect.Message) {
	if f := m.Descriptor().Fields().ByName("request_id"); f != nil && f.Kind() == protoreflect.StringKind && !f.IsList() {
		m.Set(f, protoreflect.ValueOfString(strings.ToLower(m.Get(f).String())))
	}
}

// refuseNUL refuses a text with U+0000, wherever in a message it is: Postgres can't store it, so an event that held one
// would stop the read models.
func refuseNUL(at protopath.Values) error {
	last := at.Index(-1)
	text, _ := last.Value.Interface().(string)
	if key := last.Step.MapIndex(); key.IsValid() {
		text += key.String()
	}
	if strings.Contains(text, "\x00") {
		path := at.Path[1:].String() // the first step is the message
		return fault.InvalidField(strings.TrimPrefix(path, "."), "must not contain the character U+0000")
	}
	return nil
}
