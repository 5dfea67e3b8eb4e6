package eventschema

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// Redacted stands where something personal was.
const Redacted = "[personal]"

// Redact replaces what is marked as personal in a message, wherever it is set, by [Redacted]. What this build does not
// know of the message is removed, because it may be personal.
func Redact(m proto.Message) { redact(m.ProtoReflect()) }

func redact(m protoreflect.Message) {
	m.SetUnknown(nil)
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case proto.GetExtension(f.Options(), typev1.E_Personal).(bool):
			m.Set(f, protoreflect.ValueOfString(Redacted))
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, value protoreflect.Value) bool {
					redact(value.Message())
					return true
				})
			}
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				redact(v.List().Get(i).Message())
			}
		default:
			redact(v.Message())
		}
		return true
	})
}
