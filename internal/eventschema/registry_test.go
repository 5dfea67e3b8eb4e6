package eventschema

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/purserhq/purser/internal/eventlog"
	catalogevent "github.com/purserhq/purser/proto/purser/catalog/event/v1"
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

// testdata has TYPE.vN.json for every version ever stored, and for those that are no longer written TYPE.vN.reads.json:
// what it reads as today.
func TestEveryVersionEverStoredIsReadable(t *testing.T) {
	r := New()
	seen := map[string]bool{}
	for _, e := range events() {
		name := string(e.message.ProtoReflect().Descriptor().Name())
		for v := 1; v <= e.version; v++ {
			t.Run(fmt.Sprintf("%s.v%d", name, v), func(t *testing.T) {
				file := fmt.Sprintf("%s.v%d.json", name, v)
				seen[file] = true
				data := golden(t, file)
				messages, err := r.Decode(name, v, ContentTypeJSON, data)
				if err != nil {
					t.Fatal(err)
				}
				type typed struct {
					Type string          `json:"type"`
					Data json.RawMessage `json:"data"`
				}
				want := []typed{{name, data}}
				if v < e.version {
					file := fmt.Sprintf("%s.v%d.reads.json", name, v)
					seen[file] = true
					if err := json.Unmarshal(golden(t, file), &want); err != nil {
						t.Fatal(err)
					}
				}
				if len(messages) != len(want) {
					t.Fatalf("reads as %d messages, want %d", len(messages), len(want))
				}
				for i, m := range messages {
					got, err := r.Encode(m)
					if err != nil {
						t.Fatal(err)
					}
					if got.Type != want[i].Type {
						t.Errorf("message %d is %s, want %s", i, got.Type, want[i].Type)
					}
					sameJSON(t, got.Data, want[i].Data)
				}
			})
		}
	}
	files, err := filepath.Glob("testdata/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !seen[filepath.Base(f)] {
			t.Errorf("%s was not looked at: a version that was stored must stay known", f)
		}
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

func TestUpcastersRenameAndSplit(t *testing.T) {
	r, err := newRegistry([]event{{&catalogevent.ProductRenamed{}, 2}, {&catalogevent.PriceChanged{}, 1}}, map[schema]upcaster{
		// A type that no longer exists, split into two that do, one of them an old version itself.
		{"ProductEdited", 1}: func(f map[string]any) []stored {
			return []stored{
				{schema{"ProductRenamed", 1}, map[string]any{"product_id": f["product_id"], "title": f["title"]}},
				{schema{"PriceChanged", 1}, map[string]any{"product_id": f["product_id"], "price": f["price"]}},
			}
		},
		{"ProductRenamed", 1}: func(f map[string]any) []stored {
			f["name"] = f["title"]
			delete(f, "title")
			return []stored{{schema{"ProductRenamed", 2}, f}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Decode("ProductEdited", 1, ContentTypeJSON, []byte(`{"product_id": "p", "title": "Pot", "price": {"amount_minor": "5"}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []proto.Message{
		&catalogevent.ProductRenamed{ProductId: "p", Name: "Pot"},
		&catalogevent.PriceChanged{ProductId: "p", Price: &typev1.Money{AmountMinor: 5}},
	}
	if len(got) != 2 || !proto.Equal(got[0], want[0]) || !proto.Equal(got[1], want[1]) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestContradictoryTablesAreRefused(t *testing.T) {
	same := func(f map[string]any) []stored { return nil }
	for want, c := range map[string]struct {
		events    []event
		upcasters map[schema]upcaster
	}{
		"event type OrderConfirmed is both":         {[]event{{&orderevent.OrderConfirmed{}, 1}, {&orderevent.OrderConfirmed{}, 1}}, nil},
		"no upcaster for version 1":                 {[]event{{&orderevent.OrderConfirmed{}, 2}}, nil},
		"an upcaster for version 1 of OrderConfirm": {[]event{{&orderevent.OrderConfirmed{}, 1}}, map[schema]upcaster{{"OrderConfirmed", 1}: same}},
	} {
		if _, err := newRegistry(c.events, c.upcasters); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestEncodeRefusesWhatIsNoEvent(t *testing.T) {
	if _, err := New().Encode(&typev1.Money{}); !errors.Is(err, eventlog.ErrUnknownType) {
		t.Errorf("got %v", err)
	}
}

func golden(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func sameJSON(t *testing.T, got, want []byte) {
	t.Helper()
	var g, w any
	if err := errors.Join(json.Unmarshal(got, &g), json.Unmarshal(want, &w)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("got %s, want %s", got, want)
	}
}
