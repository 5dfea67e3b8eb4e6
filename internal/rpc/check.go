package rpc

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
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
		var invalid *protovalidate.ValidationError
		if errors.As(err, &invalid) {
			return violations(m.ProtoReflect().Descriptor(), invalid)
		}
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

// violations lists the fields of a message that break a rule.
func violations(m protoreflect.MessageDescriptor, err *protovalidate.ValidationError) *fault.Fault {
	f := &fault.Fault{Kind: fault.Invalid, Reason: typev1.ErrorReason_ERROR_REASON_INVALID_FIELD, Err: err}
	var words []string
	for _, v := range err.Violations {
		if members := membersOf(m, v.Proto.GetField()); len(members) > 0 {
			description := strings.Join(members, " or ") + " must be given"
			for _, path := range members {
				f.Fields = append(f.Fields, fault.Field{Path: path, Description: description})
			}
			words = append(words, description)
			continue
		}
		field := fault.Field{Path: protovalidate.FieldPathString(v.Proto.GetField()), Description: inWords(v)}
		f.Fields = append(f.Fields, field)
		words = append(words, strings.TrimPrefix(field.Path+": "+field.Description, ": "))
	}
	f.Message = strings.Join(words, "; ")
	return f
}

// membersOf are the paths of the fields of a oneof, and none where a path leads to anything else. Clients know the fields
// only: the name of a oneof is in no message.
func membersOf(m protoreflect.MessageDescriptor, path *validate.FieldPath) []string {
	steps := path.GetElements()
	if len(steps) == 0 {
		return nil
	}
	above, last := steps[:len(steps)-1], protoreflect.Name(steps[len(steps)-1].GetFieldName())
	for _, step := range above {
		field := m.Fields().ByNumber(protoreflect.FieldNumber(step.GetFieldNumber()))
		if field != nil && field.IsMap() {
			field = field.MapValue()
		}
		if field == nil || field.Message() == nil {
			return nil
		}
		m = field.Message()
	}
	oneof := m.Oneofs().ByName(last)
	if oneof == nil || m.Fields().ByName(last) != nil {
		return nil
	}
	members := make([]string, oneof.Fields().Len())
	for i := range members {
		member := &validate.FieldPathElement{FieldName: proto.String(string(oneof.Fields().Get(i).Name()))}
		members[i] = protovalidate.FieldPathString(&validate.FieldPath{Elements: append(slices.Clone(above), member)})
	}
	return members
}

// patterns says in words what the regular expressions in the .proto files ask for.
var patterns = map[string]string{
	"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$": "must be 1 to 64 letters, digits, dots, underscores or hyphens, and begin with a letter or digit",
	"^[A-Z]{2}$":                        "must be a country's code of two capital letters, such as NL",
	"^[A-Z]{3}$":                        "must be a currency's code of three capital letters, such as EUR",
}

// inWords says which rule is broken, for people who know no regular expressions.
func inWords(v *protovalidate.Violation) string {
	if v.Proto.GetRuleId() == "string.pattern" && v.RuleValue.IsValid() {
		if words, ok := patterns[v.RuleValue.String()]; ok {
			return words
		}
	}
	return v.Proto.GetMessage()
}
