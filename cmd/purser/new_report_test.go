package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/eventfile"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// liveWithin is how soon a new report has to be there, and right.
const liveWithin = time.Minute

// Whoever follows docs/new-report.md to the letter, with a data directory full of orders, has the report of that page live
// and right within a minute.
func TestNewReport(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts a whole Purser")
	}
	orders, patience := 2000, startTimeout
	if os.Getenv("PURSER_TEST_SOAK") != "" {
		orders, patience = 100_000, 10*time.Minute
	}
	i := &instance{t: t, dir: pgtest.Dir(t), offset: freeOffset(t), patience: patience}
	want := pastOrders(t, i.dir, orders)
	t.Cleanup(func() {
		if i.cmd != nil {
			i.stop()
		}
	})
	i.start() // as it was before there was the report, up to when its read models have caught up
	i.stop()

	page := newReportPage(t)
	i.program, i.patience = page.build(t), liveWithin
	started := time.Now()
	i.start()
	r := readmeRunner{t: t, root: repositoryRoot(t), offset: i.offset, grpcurl: goTool(t, "grpcurl")}
	eventually(t, liveWithin-time.Since(started), func() error {
		out, err := r.shell(page.ask)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if got := countryLines(t, out); !reflect.DeepEqual(got, want) {
			return fmt.Errorf("reported %v, want %v", got, want)
		}
		return nil
	})
	t.Logf("live after %s with %d orders", time.Since(started).Round(time.Millisecond), orders)
}

// reportPage is what the page has one do.
type reportPage struct {
	file, source   string // the new file, from the repository's root
	catalogue      string // the file of the catalogue
	before, insert string // its line after which one is put, and that one
	ask            string // the command that asks for the report
}

func newReportPage(t *testing.T) reportPage {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repositoryRoot(t), "docs", "new-report.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string]string{}
	for _, b := range fencedBlocks(string(text)) {
		if blocks[b.language] != "" {
			t.Fatalf("the page has more than one block of %s", b.language)
		}
		blocks[b.language] = b.text
	}
	file := regexp.MustCompile("(?m)^`(internal/readmodel/\\w+\\.go)`:$").FindStringSubmatch(string(text))
	catalogue := regexp.MustCompile("(?m)^One line in the catalogue of `([\\w/]+\\.go)`").FindStringSubmatch(string(text))
	diff := strings.Split(strings.TrimSuffix(blocks["diff"], "\n"), "\n")
	if file == nil || catalogue == nil || len(diff) != 2 || diff[0][0] != ' ' || diff[1][0] != '+' {
		t.Fatalf("the page names the files %v and %v, and changes %q", file, catalogue, diff)
	}
	return reportPage{
		file: file[1], source: blocks["go"], catalogue: catalogue[1], before: diff[0][1:], insert: diff[1][1:], ask: strings.TrimSpace(blocks["sh"]),
	}
}

// build builds purser with what the page changes, and nothing else, and returns the binary.
func (p reportPage) build(t *testing.T) string {
	t.Helper()
	root, dir := repositoryRoot(t), t.TempDir()
	catalogue, err := os.ReadFile(filepath.Join(root, p.catalogue))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(catalogue), p.before+"\n"); n != 1 {
		t.Fatalf("%s has %d lines %q", p.catalogue, n, p.before)
	}
	replace := map[string]string{}
	for file, text := range map[string]string{
		p.file: p.source, p.catalogue: strings.Replace(string(catalogue), p.before+"\n", p.before+"\n"+p.insert+"\n", 1),
	} {
		changed := filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, file)] = changed
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "purser")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, "./cmd/purser")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("what the page says does not build: %v\n%s", err, out)
	}
	return program
}

// countryLine is what was sold to a country in a currency.
type countryLine struct{ orders, revenue int64 }

// countryLines reads what grpcurl prints of the report, by country and currency.
func countryLines(t *testing.T, out []byte) map[string]countryLine {
	t.Helper()
	var reply struct {
		Rows []struct {
			Cells []struct {
				Text   string
				Number int64 `json:",string"`
				Money  struct {
					CurrencyCode string
					AmountMinor  int64 `json:",string"`
				}
			}
		}
	}
	if err := json.Unmarshal(out, &reply); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := map[string]countryLine{}
	for _, r := range reply.Rows {
		c := r.Cells
		if len(c) != 4 || c[1].Text != c[3].Money.CurrencyCode {
			t.Fatalf("a line %v", c)
		}
		lines[c[0].Text+" "+c[1].Text] = countryLine{c[2].Number, c[3].Money.AmountMinor}
	}
	return lines
}

// pastOrders fills the event store of a data directory with orders that have come to their ends, and returns what was sold
// to each country.
func pastOrders(t *testing.T, dir string, n int) map[string]countryLine {
	t.Helper()
	file := filepath.Join(t.TempDir(), "orders.jsonl")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := eventfile.NewWriter(f)
	registry := eventschema.New()
	want := map[string]countryLine{}
	for i := range n {
		country, currency, total := []string{"NL", "BE", "DE"}[i%3], []string{"EUR", "USD"}[i/3%2], int64(100+i%900)
		events, live := pastOrder(fmt.Sprintf("past-%06d", i), country, &typev1.Money{CurrencyCode: currency, AmountMinor: total}, i%4)
		if live {
			line := want[country+" "+currency]
			want[country+" "+currency] = countryLine{line.orders + 1, line.revenue + total}
		}
		for _, stream := range slices.Sorted(maps.Keys(events)) {
			for revision, m := range events[stream] {
				if err := w.Write(recorded(t, registry, stream, eventlog.Revision(revision), m)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	store := startStore(t, dir, loopback+":0")
	onStore(t, "esdb://"+store.addr+"?tls=false").run("import", file)
	store.stop(t)
	return want
}

// pastOrder is all that one order leaves behind, by stream, and whether it counts as sold: two in four are confirmed, one
// rejected and one cancelled.
func pastOrder(id, country string, total *typev1.Money, end int) (events map[string][]proto.Message, live bool) {
	placed := &orderevent.OrderPlaced{
		OrderId: id, OrderNumber: strings.ToUpper(strings.ReplaceAll(id, "-", "0")) + "0", CustomerId: "c-" + country, Total: total,
		Lines:           []*orderevent.OrderLine{{ProductId: "mug", Name: "Mug", Quantity: 1, UnitPrice: total}},
		DeliveryAddress: &typev1.Address{CountryCode: country}, Priority: typev1.Priority_PRIORITY_STANDARD,
	}
	switch end {
	case 0:
		return map[string][]proto.Message{
			"order-" + id:       {placed, &orderevent.OrderRejected{OrderId: id, Reason: typev1.RejectReason_REJECT_REASON_OUT_OF_STOCK}},
			"fulfillment-" + id: {&fulfillmentevent.LineRefused{OrderId: id, ProductId: "mug", Requested: 1}},
		}, false
	case 1:
		return map[string][]proto.Message{
			"order-" + id:       {placed, &orderevent.OrderCancellationRequested{OrderId: id}, &orderevent.OrderCancelled{OrderId: id}},
			"fulfillment-" + id: {&fulfillmentevent.LineReleased{OrderId: id, ProductId: "mug"}},
		}, false
	}
	return map[string][]proto.Message{
		"order-" + id:       {placed, &orderevent.OrderConfirmed{OrderId: id}},
		"fulfillment-" + id: {&fulfillmentevent.LineReserved{OrderId: id, ProductId: "mug", Quantity: 1}},
		"payment-" + id: {
			&paymentevent.AuthorizationRequested{OrderId: id, CustomerId: placed.GetCustomerId(), Amount: total},
			&paymentevent.PaymentAuthorized{OrderId: id},
		},
	}, true
}

func recorded(t *testing.T, registry *eventschema.Registry, stream string, revision eventlog.Revision, m proto.Message) eventlog.Recorded {
	t.Helper()
	e, err := registry.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := json.Marshal(eventlog.Metadata{OccurredAt: time.Date(2026, 1, 31, 9, 30, 0, 0, time.UTC), SchemaVersion: e.Version, Actor: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	return eventlog.Recorded{
		ID: uuid.New(), Stream: stream, Revision: revision, Type: e.Type, ContentType: e.ContentType, Data: e.Data, Metadata: meta,
	}
}
