package eventschema

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/purserhq/purser/internal/eventlog"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// Every message of an event package is an event, or a part of one.
func TestEveryEventIsRegistered(t *testing.T) {
	r := New()
	parts := map[protoreflect.FullName]bool{}
	var messages []protoreflect.MessageDescriptor
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if !strings.HasPrefix(string(f.Package()), "purser.") || !strings.HasSuffix(string(f.Package()), ".event.v1") {
			return true
		}
		for i := range f.Messages().Len() {
			m := f.Messages().Get(i)
			messages = append(messages, m)
			for j := range m.Fields().Len() {
				if part := m.Fields().Get(j).Message(); part != nil {
					parts[part.FullName()] = true
				}
			}
		}
		return true
	})
	if len(messages) == 0 {
		t.Fatal("found no event messages")
	}
	for _, m := range messages {
		c, ok := r.current[string(m.Name())]
		switch registered := ok && c.message.Descriptor().FullName() == m.FullName(); {
		case registered == parts[m.FullName()]:
			t.Errorf("%s: registered %t, part of another message %t", m.FullName(), registered, parts[m.FullName()])
		case registered:
			delete(r.current, string(m.Name()))
		}
	}
	for name := range r.current {
		t.Errorf("%s is registered but in no event package", name)
	}
}

func TestOrderPlacedWithoutPriorityIsStandard(t *testing.T) {
	messages, err := New().Decode("OrderPlaced", 1, ContentTypeJSON, []byte(`{"order_id": "7", "total": {"amount_minor": "9007199254740993"}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := &orderevent.OrderPlaced{
		OrderId: "7", Total: &typev1.Money{AmountMinor: 9007199254740993}, Priority: typev1.Priority_PRIORITY_STANDARD,
	}
	if len(messages) != 1 || !proto.Equal(messages[0], want) {
		t.Errorf("got %v, want %v", messages, want)
	}
}

func TestDecode(t *testing.T) {
	r := New()
	binary, err := proto.Marshal(&orderevent.OrderConfirmed{OrderId: "7"})
	if err != nil {
		t.Fatal(err)
	}
	want := &orderevent.OrderConfirmed{OrderId: "7"}
	for name, c := range map[string]struct {
		eventType   string
		version     int
		contentType string
		data        string
		err         error
		text        string
	}{
		"json":                      {"OrderConfirmed", 1, ContentTypeJSON, `{"order_id": "7"}`, nil, ""},
		"unknown field":             {"OrderConfirmed", 1, ContentTypeJSON, `{"order_id": "7", "novelty": [{}]}`, nil, ""},
		"binary":                    {"OrderConfirmed", 1, ContentTypeBinary, string(binary), nil, ""},
		"unknown type":              {"OrderEnchanted", 1, ContentTypeJSON, `{}`, eventlog.ErrUnknownType, "OrderEnchanted"},
		"newer version":             {"OrderConfirmed", 2, ContentTypeJSON, `{}`, eventlog.ErrNewerVersion, "version 2, known up to 1"},
		"newer version, upcasted":   {"OrderPlaced", 3, ContentTypeJSON, `{}`, eventlog.ErrNewerVersion, "version 3, known up to 2"},
		"no version":                {"OrderConfirmed", 0, ContentTypeJSON, `{}`, nil, "no version 0"},
		"unknown content type":      {"OrderConfirmed", 1, "text/plain", `{}`, nil, "text/plain"},
		"old version in binary":     {"OrderPlaced", 1, ContentTypeBinary, ``, nil, "not stored as"},
		"no JSON":                   {"OrderConfirmed", 1, ContentTypeJSON, `Ada`, nil, "no OrderConfirmed of version 1"},
		"other JSON":                {"OrderConfirmed", 1, ContentTypeJSON, `{"order_id": {"Ada": 1}}`, nil, "no OrderConfirmed of version 1"},
		"old version, no JSON":      {"OrderPlaced", 1, ContentTypeJSON, `Ada`, nil, "no OrderPlaced of version 1"},
		"old version, two objects":  {"OrderPlaced", 1, ContentTypeJSON, `{}}`, nil, "no OrderPlaced of version 1"},
		"old version, null":         {"OrderPlaced", 1, ContentTypeJSON, `null`, nil, "no OrderPlaced of version 1"},
		"old version, other fields": {"OrderPlaced", 1, ContentTypeJSON, `{"lines": "Ada"}`, nil, "upcast from OrderPlaced version 1"},
	} {
		t.Run(name, func(t *testing.T) {
			messages, err := r.Decode(c.eventType, c.version, c.contentType, []byte(c.data))
			if c.text == "" {
				if err != nil || len(messages) != 1 || !proto.Equal(messages[0], want) {
					t.Errorf("got %v, %v", messages, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.text) || (c.err != nil && !errors.Is(err, c.err)) {
				t.Fatalf("got %v, want %v with %q", err, c.err, c.text)
			}
			if strings.Contains(err.Error(), "Ada") {
				t.Errorf("the error quotes the data: %v", err)
			}
		})
	}
}

func TestEncodeRefusesWhatIsNoEvent(t *testing.T) {
	if _, err := New().Encode(&typev1.Money{}); !errors.Is(err, eventlog.ErrUnknownType) {
		t.Errorf("got %v", err)
	}
}
