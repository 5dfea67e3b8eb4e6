package eventschema

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/eventlog"
	catalogevent "github.com/purserhq/purser/proto/purser/catalog/event/v1"
	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// history is a catalogue that has seen it all. PriceChanged has been three things; ProductEdited is gone, split into an
// old version of one event and the current one of another; ProductNamed was renamed; ProductViewed means nothing now.
func history(t *testing.T) *Registry {
	t.Helper()
	r, err := newRegistry([]event{{&catalogevent.ProductRenamed{}, 2}, {&catalogevent.PriceChanged{}, 3}}, map[schema]upcaster{
		{"PriceChanged", 1}: into(schema{"PriceChanged", 2}, func(f map[string]any) {
			f["amount_minor"] = f["cents"]
			delete(f, "cents")
		}),
		{"PriceChanged", 2}: into(schema{"PriceChanged", 3}, func(f map[string]any) {
			setDefault(f, "currency_code", "EUR")
			f["price"] = map[string]any{"currency_code": f["currency_code"], "amount_minor": f["amount_minor"]}
		}),
		{"ProductRenamed", 1}: into(schema{"ProductRenamed", 2}, func(f map[string]any) { f["name"] = f["title"] }),
		{"ProductNamed", 1}:   into(schema{"ProductRenamed", 1}, func(map[string]any) {}),
		{"ProductEdited", 1}: {
			to: []schema{{"ProductRenamed", 1}, {"PriceChanged", 2}},
			rewrite: func(f map[string]any) []stored {
				return []stored{
					{schema{"ProductRenamed", 1}, map[string]any{"product_id": f["product_id"], "title": f["title"]}},
					{schema{"PriceChanged", 2}, map[string]any{"product_id": f["product_id"], "amount_minor": f["amount_minor"]}},
				}
			},
		},
		{"ProductViewed", 1}: {rewrite: func(map[string]any) []stored { return nil }},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestUpcasters(t *testing.T) {
	r := history(t)
	renamed := &catalogevent.ProductRenamed{ProductId: "p", Name: "Pot"}
	price := func(currency string) proto.Message {
		return &catalogevent.PriceChanged{ProductId: "p", Price: &typev1.Money{CurrencyCode: currency, AmountMinor: 9007199254740993}}
	}
	for name, c := range map[string]struct {
		eventType string
		version   int
		data      string
		want      []proto.Message
	}{
		"current":                {"ProductRenamed", 2, `{"product_id": "p", "name": "Pot"}`, []proto.Message{renamed}},
		"a field was renamed":    {"ProductRenamed", 1, `{"product_id": "p", "title": "Pot"}`, []proto.Message{renamed}},
		"a default":              {"PriceChanged", 2, `{"product_id": "p", "amount_minor": "9007199254740993"}`, []proto.Message{price("EUR")}},
		"no default":             {"PriceChanged", 2, `{"product_id": "p", "amount_minor": "9007199254740993", "currency_code": "USD"}`, []proto.Message{price("USD")}},
		"two versions ago":       {"PriceChanged", 1, `{"product_id": "p", "cents": 9007199254740993}`, []proto.Message{price("EUR")}},
		"the type was renamed":   {"ProductNamed", 1, `{"product_id": "p", "title": "Pot"}`, []proto.Message{renamed}},
		"split":                  {"ProductEdited", 1, `{"product_id": "p", "title": "Pot", "amount_minor": 9007199254740993}`, []proto.Message{renamed, price("EUR")}},
		"means nothing any more": {"ProductViewed", 1, `{"product_id": "p"}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := r.Decode(c.eventType, c.version, ContentTypeJSON, []byte(c.data))
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(c.want) {
				t.Fatalf("got %v, want %v", got, c.want)
			}
			for i := range got {
				if !proto.Equal(got[i], c.want[i]) {
					t.Errorf("got %v, want %v", got[i], c.want[i])
				}
			}
		})
	}
}

// A type that is no longer written is still ours: a version of it that this build does not know is a newer build's.
func TestNewerVersionOfATypeThatIsNoLongerWritten(t *testing.T) {
	r := history(t)
	if !r.Knows("ProductEdited") {
		t.Error("ProductEdited is not known")
	}
	if _, err := r.Decode("ProductEdited", 2, ContentTypeJSON, []byte(`{}`)); !errors.Is(err, eventlog.ErrNewerVersion) {
		t.Errorf("got %v", err)
	}
	if _, err := r.Decode("ProductEdited", 0, ContentTypeJSON, []byte(`{}`)); err == nil || !strings.Contains(err.Error(), "no version 0") {
		t.Errorf("got %v", err)
	}
}

// Of a split, all parts can be read or the event can't.
func TestSplitIsReadWholeOrNotAtAll(t *testing.T) {
	got, err := history(t).Decode("ProductEdited", 1, ContentTypeJSON, []byte(`{"product_id": "p", "title": "Pot", "amount_minor": "Ada"}`))
	if err == nil || got != nil || strings.Contains(err.Error(), "Ada") {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestUpcasterMakesOnlyWhatItDeclares(t *testing.T) {
	r, err := newRegistry([]event{{&stockevent.StockReceived{}, 2}}, map[schema]upcaster{
		{"StockReceived", 1}: {
			to:      []schema{{"StockReceived", 2}},
			rewrite: func(f map[string]any) []stored { return []stored{{schema{"StockCounted", 1}, f}} },
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Decode("StockReceived", 1, ContentTypeJSON, []byte(`{}`))
	if err == nil || !strings.Contains(err.Error(), "makes StockCounted version 1, which it does not declare") {
		t.Errorf("got %v", err)
	}
}

// What would otherwise be noticed only when an old event is read.
func TestTablesWithAGapAreRefused(t *testing.T) {
	to := func(schemas ...schema) upcaster {
		return upcaster{to: schemas, rewrite: func(map[string]any) []stored { return nil }}
	}
	confirmed := func(version int) event { return event{&orderevent.OrderConfirmed{}, version} }
	for want, c := range map[string]struct {
		events    []event
		upcasters map[schema]upcaster
	}{
		"event type OrderConfirmed is both":                      {[]event{confirmed(1), confirmed(1)}, nil},
		"OrderConfirmed has version 0":                           {[]event{confirmed(0)}, nil},
		"no upcaster for version 1 of OrderConfirmed":            {[]event{confirmed(2)}, nil},
		"no upcaster for version 2 of OrderConfirmed":            {[]event{confirmed(3)}, map[schema]upcaster{{"OrderConfirmed", 1}: to(schema{"OrderConfirmed", 3})}},
		"no upcaster for version 1 of OrderApproved":             {[]event{confirmed(1)}, map[schema]upcaster{{"OrderApproved", 2}: to(schema{"OrderConfirmed", 1})}},
		"version 1 of OrderConfirmed, whose current one is 1":    {[]event{confirmed(1)}, map[schema]upcaster{{"OrderConfirmed", 1}: to()}},
		"version 2 of OrderConfirmed, whose current one is 1":    {[]event{confirmed(1)}, map[schema]upcaster{{"OrderConfirmed", 2}: to()}},
		"version 0 of OrderApproved: versions begin at 1":        {nil, map[schema]upcaster{{"OrderApproved", 0}: to()}},
		"the upcaster of OrderApproved version 1 does nothing":   {nil, map[schema]upcaster{{"OrderApproved", 1}: {}}},
		"leads to OrderConfirmed version 2, which nothing reads": {[]event{confirmed(1)}, map[schema]upcaster{{"OrderApproved", 1}: to(schema{"OrderConfirmed", 1}, schema{"OrderConfirmed", 2})}},
		"leads to OrderSigned version 1, which nothing reads":    {nil, map[schema]upcaster{{"OrderApproved", 1}: to(schema{"OrderSigned", 1})}},
		"OrderApproved version 1 leads back to it":               {nil, map[schema]upcaster{{"OrderApproved", 1}: to(schema{"OrderApproved", 1})}},
		"OrderApproved version 2 leads back to it": {[]event{confirmed(1)}, map[schema]upcaster{
			{"OrderApproved", 1}: to(schema{"OrderConfirmed", 1}),
			{"OrderApproved", 2}: to(schema{"OrderConfirmed", 1}, schema{"OrderSigned", 1}),
			{"OrderSigned", 1}:   to(schema{"OrderApproved", 1}, schema{"OrderApproved", 2}),
		}},
	} {
		t.Run(want, func(t *testing.T) {
			if _, err := newRegistry(c.events, c.upcasters); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v", err)
			}
		})
	}
}
