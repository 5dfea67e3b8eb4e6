package eventschema

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// fill sets every field of a message to something, and every string to a text.
func fill(m protoreflect.Message, text string) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		value := m.NewField(f)
		switch {
		case f.IsMap():
		case f.IsList() && f.Message() != nil:
			fill(value.List().AppendMutable().Message(), text)
		case f.IsList():
		case f.Message() != nil:
			fill(value.Message(), text)
		case f.Kind() == protoreflect.StringKind:
			value = protoreflect.ValueOfString(text)
		}
		m.Set(f, value)
	}
}

// Redact leaves nothing personal, whatever the event, and everything else as it was.
func TestRedact(t *testing.T) {
	const text = "Ada Lovelace"
	redacted := 0
	for _, e := range events() {
		m := e.message.ProtoReflect().New()
		fill(m, text)
		before := proto.Clone(m.Interface())
		Redact(m.Interface())
		redacted += compare(t, m.Descriptor().FullName(), before.ProtoReflect(), m, text)
	}
	if redacted < 8 { // address lines of two events, a reason and two payment methods
		t.Errorf("only %d personal fields were found", redacted)
	}
}

// compare walks two copies of a message, of which the second was redacted, and returns the number of personal fields.
func compare(t *testing.T, path protoreflect.FullName, before, after protoreflect.Message, text string) (personal int) {
	before.Range(func(f protoreflect.FieldDescriptor, was protoreflect.Value) bool {
		name, is := path.Append(f.Name()), after.Get(f)
		switch {
		case proto.GetExtension(f.Options(), typev1.E_Personal).(bool):
			personal++
			if is.String() != Redacted {
				t.Errorf("%s is shown as %q", name, is)
			}
		case f.IsList() && f.Message() != nil:
			personal += compare(t, name, was.List().Get(0).Message(), is.List().Get(0).Message(), text)
		case !f.IsList() && !f.IsMap() && f.Message() != nil:
			personal += compare(t, name, was.Message(), is.Message(), text)
		case !was.Equal(is):
			t.Errorf("%s was %v and became %v", name, was, is)
		}
		return true
	})
	return personal
}

func TestRedactRemovesWhatIsUnknown(t *testing.T) {
	m := &typev1.Money{CurrencyCode: "EUR"}
	m.ProtoReflect().SetUnknown(protoreflect.RawFields{0xa2, 0x06, 0x03, 'A', 'd', 'a'})
	Redact(m)
	if b, err := proto.Marshal(m); err != nil || strings.Contains(string(b), "Ada") || m.GetCurrencyCode() != "EUR" {
		t.Errorf("%s, %v", protojson.Format(m), err)
	}
}
