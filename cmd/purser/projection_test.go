package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	"github.com/purserhq/purser/internal/readmodel"
	projectionv1 "github.com/purserhq/purser/proto/purser/projection/v1"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// faultyModels are two of the read models as a version kept them that could not apply the first event of one order.
func faultyModels() []consumer.Model {
	fails := func(e consumer.Event) {
		if e.Key == "faulty" {
			panic("a bug")
		}
	}
	summaries, timeline := readmodel.OrderSummaries, readmodel.OrderTimeline
	sales, customers := readmodel.SalesByDay, readmodel.CustomerTotals
	evolve, entries := summaries.Evolve, timeline.Entries
	summaries.Evolve = func(r *readmodel.OrderSummary, e consumer.Event) { fails(e); evolve(r, e) }
	timeline.Entries = func(e consumer.Event) []readmodel.TimelineEntry { fails(e); return entries(e) }
	sales.Of, customers.Of = &summaries, &summaries
	return []consumer.Model{summaries.Model(&sales, &customers), timeline.Model()}
}

// runFaulty has the faulty version of the projector read what is there.
func runFaulty(t *testing.T, storeURL string, pool *pgxpool.Pool) {
	t.Helper()
	log, err := eventlog.Open(storeURL, eventschema.New(), quiet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c := consumer.New(pool, log, "projector", eventschema.Categories(), faultyModels(), quiet(), consumer.NewMetrics(prometheus.NewRegistry()))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	eventually(t, settle, func() error { return c.Ready(t.Context()) })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func (i *instance) projections() projectionv1.ProjectionServiceClient {
	conn, err := grpc.NewClient(i.addr(projectorPorts), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(func() { conn.Close() })
	return projectionv1.NewProjectionServiceClient(conn)
}

// A faulty version parks an order, and the others flow; the next version takes the order up, everything is as the log has
// it, and whatever is tampered with is found.
func TestAParkedOrderIsCured(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole Purser")
	}
	past := newPastStore(t)
	past.write("product-mug", "ProductCreated", 1, `{"product_id": "mug", "name": "Enamel mug", "price": {"currency_code": "EUR", "amount_minor": "1450"}}`, "")
	past.write("stock-mug", "StockReceived", 1, `{"product_id": "mug", "quantity": "20"}`, "")
	for _, id := range []string{"good", "faulty", "better"} {
		past.confirmed(id, 2, uuid.NewString())
	}
	database := pgtest.Database(t)
	pool, err := pgxpool.New(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	audit := func(more ...string) (string, error) {
		return runCommand(t, append([]string{"audit", "--eventstore-url", past.url, "--postgres-url", database}, more...)...)
	}

	runFaulty(t, past.url, pool)
	out, err := audit("--model", "order_summaries", "--model", "order_timeline")
	if err != nil {
		t.Error(err)
	}
	wantLines(t, out, "order_summaries faulty: parked since position", "order_timeline faulty: parked since position", "order_summaries, with sales_by_day and customer_totals: 2 keys compared")
	if !strings.HasSuffix(out, "\nno difference\n") {
		t.Errorf("the last line is not that there is no difference:\n%s", out)
	}
	if out, err := audit("--model", "payments"); err == nil || !strings.Contains(out, "payments: no version of payments that") {
		t.Errorf("of a model that never ran: %v\n%s", err, out)
	}

	i := newInstance(t, "--eventstore-url", past.url, "--postgres-url", database)
	projection := func(args ...string) (string, error) {
		return runCommand(t, append(append([]string{"projection"}, args...), "--projector-addr", i.addr(projectorPorts))...)
	}
	if out, err = projection("parked"); err != nil || strings.Count(out, "faulty") != 2 {
		t.Errorf("parked: %v\n%s", err, out)
	}
	wantLines(t, out, "PROJECTION KEY POSITION SINCE CAUSE", "panic: a bug")
	i.wantOrders(t, 2)
	for _, model := range []string{"order_summaries", "order_timeline"} {
		if out, err := projection("unpark", model, "faulty"); err != nil || out != "faulty of "+model+" unparked\n" {
			t.Errorf("unpark: %q, %v", out, err)
		}
		_, err := i.projections().UnparkKey(t.Context(), &projectionv1.UnparkKeyRequest{Projection: model, Key: "faulty"})
		wantError(t, err, codes.NotFound, "PARKED_KEY_NOT_FOUND")
	}
	i.wantOrders(t, 3)
	if out, err := audit(); err != nil || strings.Contains(out, "parked since") {
		t.Errorf("the audit: %v\n%s", err, out)
	}

	t.Run("what can't be cured", func(t *testing.T) {
		past.write("order-worse", "OrderConfirmed", 1, `[]`, "")
		past.confirmed("best", 2, uuid.NewString())
		i.reaches(t, "best", typev1.OrderState_ORDER_STATE_CONFIRMED)
		eventually(t, settle, func() error {
			_, err := i.projections().UnparkKey(t.Context(), &projectionv1.UnparkKeyRequest{Projection: "order_details", Key: "worse"})
			if err == nil {
				return fmt.Errorf("it is not parked")
			}
			wantError(t, err, codes.FailedPrecondition, "KEY_STILL_POISONED")
			return nil
		})
		if _, err := projection("unpark", "order_details", "worse"); err == nil || !strings.HasPrefix(err.Error(), `"worse" stays parked: can't be applied: order-worse@0`) {
			t.Errorf("%v", err)
		}
		for call, want := range map[string]string{
			"unpark fulfillment_states worse": `projection "fulfillment_states" is not run by this projector, which runs order_summaries, `,
			"unpark order_details order-best": `"order-best" is not parked in projection "order_details"; the key of stream order-best is "best"`,
			"status sales_by_day":             `"sales_by_day" is no projection of its own, but kept with projection "order_summaries"`,
			"parked nothing":                  `projection "nothing" is not run by this projector`,
			"pause nothing":                   `projection "nothing" is not run by this projector`,
			"switch order_summaries":          "there is no other build of order_summaries",
			"switch payments products_v2_b1":  `projection "payments" has no build "products_v2_b1"`,
			"switch nothing":                  `projection "nothing" is not run by this projector`,
			"rebuild nothing":                 `projection "nothing" is not run by this projector`,
			"drop fulfillment_states_v1_b1":   `no projection that this projector runs has a build "fulfillment_states_v1_b1"; it runs order_summaries, `,
			"unpark order_details":            "KEY is missing: it is purser projection unpark NAME KEY",
			"status":                          "NAME is missing: it is purser projection status NAME",
		} {
			if _, err := projection(strings.Fields(call)...); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%s: %v", call, err)
			}
		}
	})

	t.Run("what is tampered with", func(t *testing.T) {
		for name, c := range map[string]struct{ tamper, undo, want string }{
			"a row": {
				`UPDATE {order_summaries} SET state = 'PLACED' WHERE order_id = 'faulty'`, `UPDATE {order_summaries} SET state = 'CONFIRMED' WHERE order_id = 'faulty'`,
				`order_summaries faulty: column state differs`,
			},
			"a line of a report": {
				`UPDATE {sales_by_day} SET orders = orders + 1 WHERE _partition = (SELECT min(_partition) FROM {sales_by_day})`,
				`UPDATE {sales_by_day} SET orders = orders - 1 WHERE _partition = (SELECT min(_partition) FROM {sales_by_day})`,
				`order_summaries sales_by_day 2020-01-31 00:00:00+00/EUR: column orders differs`,
			},
			"a row of a journal": {
				`UPDATE {order_timeline} SET actor = 'bob' || actor WHERE order_id = 'faulty' AND event_type = 'OrderPlaced'`,
				`UPDATE {order_timeline} SET actor = substr(actor, 4) WHERE order_id = 'faulty' AND event_type = 'OrderPlaced'`,
				`order_timeline faulty/`,
			},
		} {
			table := func(r consumer.Readable) string { return tableOf(t, pool, r) }
			names := strings.NewReplacer("{order_summaries}", table(&readmodel.OrderSummaries), "{sales_by_day}", table(&readmodel.SalesByDay),
				"{order_timeline}", table(&readmodel.OrderTimeline))
			if tag, err := pool.Exec(t.Context(), names.Replace(c.tamper)); err != nil || tag.RowsAffected() != 1 {
				t.Fatalf("%s: %v, %v", name, tag, err)
			}
			out, err := audit()
			if err == nil || err.Error() != "1 difference from the log" || !strings.HasPrefix(out, c.want) || strings.Contains(out, "bob") {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
			if out, _ := audit("--values"); !strings.Contains(out, ", should be ") {
				t.Errorf("%s, with values:\n%s", name, out)
			}
			if _, err := pool.Exec(t.Context(), names.Replace(c.undo)); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := audit(); err != nil {
			t.Errorf("with all undone: %v\n%s", err, out)
		}
	})

	t.Run("rebuilt, and switched back", func(t *testing.T) {
		for _, c := range []struct {
			args []string
			want string
		}{
			{[]string{"rebuild", "order_summaries"}, "order_summaries_v2_b2: "},
			{[]string{"status", "order_summaries"}, "order_summaries_v2_b1  KEPT"},
			{[]string{"list"}, "order_summaries_v2_b2  order_summaries_v2_b1 KEPT  sales_by_day customer_totals\n"},
			{[]string{"list"}, "payments_v1_b1         -  "},
			{[]string{"rebuild", "order_summaries"}, ""},
			{[]string{"switch", "order_summaries"}, "order_summaries_v2_b1  LIVE"},
			{[]string{"drop", "order_summaries_v2_b2"}, "order_summaries_v2_b2 dropped"},
			{[]string{"rebuild", "order_summaries", "--no-switch", "--json"}, `"phase":"REBUILD_PHASE_DONE"`},
			{[]string{"rebuild", "order_summaries", "--no-switch"}, "order_summaries_v2_b3: complete already, and checked again; " +
				"queries are answered from the one before until purser projection switch order_summaries\n"},
			{[]string{"drop", "order_summaries_v2_b3"}, "dropped"},
		} {
			out, err := projection(c.args...)
			if c.want == "" {
				if err == nil || err.Error() != `build "order_summaries_v2_b1" is still kept beside the live one; drop it first` {
					t.Errorf("a rebuild beside one that is kept: %v\n%s", err, out)
				}
				continue
			}
			if err != nil || !strings.Contains(out, c.want) {
				t.Fatalf("%v: %v\n%s", c.args, err, out)
			}
			if out, err := audit(); err != nil {
				t.Errorf("after %v: %v\n%s", c.args, err, out)
			}
		}
		if out, err := projection("drop", "order_summaries_v2_b1"); err == nil || err.Error() != `readers are sent to build "order_summaries_v2_b1"` {
			t.Errorf("%v\n%s", err, out)
		}
	})

	t.Run("paused and resumed", func(t *testing.T) {
		if out, err := projection("pause", "payments"); err != nil || !strings.Contains(out, "PAUSED since") {
			t.Errorf("%v\n%s", err, out)
		}
		time.Sleep(time.Second)
		if out, err := runCommand(t, "health", i.httpAddr(projectorPorts)); err != nil {
			t.Errorf("a projector with a paused model: %v %s", err, out)
		}
		past.confirmed("late", 2, uuid.NewString())
		i.reaches(t, "late", typev1.OrderState_ORDER_STATE_CONFIRMED)
		if _, err := i.query.GetPayment(t.Context(), &queryv1.GetPaymentRequest{OrderId: "late"}); err == nil {
			t.Error("a paused projection goes on")
		}
		if _, err := projection("resume", "payments"); err != nil {
			t.Error(err)
		}
		eventually(t, settle, func() error {
			_, err := i.query.GetPayment(t.Context(), &queryv1.GetPaymentRequest{OrderId: "late"})
			return err
		})
		var line struct{ Name, State string }
		eventually(t, settle, func() error {
			out, err := projection("status", "payments", "--json")
			if err == nil {
				err = json.Unmarshal([]byte(out), &line)
			}
			if err == nil && (line.Name != "payments" || line.State != "PROJECTION_STATE_LIVE") {
				err = fmt.Errorf("%s", out)
			}
			return err
		})
	})
}

// A projector that can't be reached is named with the cause.
func TestWhyAProjectorIsNotReached(t *testing.T) {
	speaksHTTP, speaksTLS := httptest.NewServer(http.NotFoundHandler()), httptest.NewUnstartedServer(http.NotFoundHandler())
	speaksTLS.Config.ErrorLog = slog.NewLogLogger(quiet().Handler(), slog.LevelError)
	speaksTLS.StartTLS()
	t.Cleanup(speaksHTTP.Close)
	t.Cleanup(speaksTLS.Close)
	for addr, want := range map[string]string{
		"127.0.0.1:1":                       "connection refused",
		"127.0.0.1":                         "address 127.0.0.1: missing port in address",
		"nowhere.invalid:50056":             "lookup nowhere.invalid",
		speaksHTTP.Listener.Addr().String(): "connection error: ",
		speaksTLS.Listener.Addr().String():  "connection error: ",
	} {
		t.Run(addr, func(t *testing.T) {
			t.Parallel()
			_, err := runCommand(t, "projection", "list", "--projector-addr", addr)
			if want := "--projector-addr " + addr + ": the projector service can't be reached: " + want; err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
		})
	}
}

// wantOrders waits until so many of the past's orders are listed and sold.
func (i *instance) wantOrders(t *testing.T, n int) {
	t.Helper()
	eventually(t, settle, func() error {
		list, err := i.query.ListOrders(t.Context(), &queryv1.ListOrdersRequest{Filter: `customer_id = "c-old"`})
		if err != nil {
			return err
		}
		report, err := i.query.RunReport(t.Context(), &queryv1.RunReportRequest{Report: "sales_by_day"})
		if err != nil {
			return err
		}
		if len(list.GetOrders()) != n || len(report.GetRows()) != 1 || !strings.Contains(fmt.Sprint(report.GetRows()), fmt.Sprint("amount_minor:", n*2*price)) {
			return fmt.Errorf("%d orders are listed, and sold is %v", len(list.GetOrders()), report.GetRows())
		}
		return nil
	})
}

// Every command of the sections on parked keys, builds and audits is run.
func TestOperatorsCommands(t *testing.T) {
	i := newInstance(t)
	order := orderOf(i.stocked(t, 3), 2, "pm_card_visa")
	order.OrderId = "o-1001"
	if _, err := i.orders.PlaceOrder(t.Context(), order); err != nil {
		t.Fatal(err)
	}
	i.reaches(t, "o-1001", typev1.OrderState_ORDER_STATE_CONFIRMED)
	dir := t.TempDir()
	if err := os.Symlink(i.dir, filepath.Join(dir, defaultDataDir)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(repositoryRoot(t), "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	r := readmeRunner{t: t, offset: i.offset, dir: dir, grpcurl: goTool(t, "grpcurl")}
	for section, want := range map[string][]string{
		"Parked keys":                   {"order_summaries", "state", "PROJECTION", "PROJECTION", `"o-1001" is not parked in projection "order_details"`, "PAUSED since", "name"},
		"Audit":                         {"order_timeline: ", "payments: "},
		"Replicas, builds and rebuilds": {"order_summaries_v2_b2: ", "order_summaries_v2_b1  LIVE", "order_summaries_v2_b2 dropped"},
	} {
		_, body, _ := strings.Cut(string(text), "\n## "+section+"\n")
		body, _, _ = strings.Cut(body, "\n## ")
		ran := 0
		for _, b := range fencedBlocks(body) {
			for _, command := range strings.Split(strings.TrimSpace(b.text), "\n") {
				out, err := r.shell(command)
				if err != nil && !strings.Contains(command, " unpark ") { // nothing is parked here
					t.Fatalf("%s: %v\n%s", command, err, out)
				}
				if ran < len(want) && !strings.Contains(string(out), want[ran]) {
					t.Errorf("%s does not say %s:\n%s", command, want[ran], out)
				}
				ran++
			}
		}
		if ran != len(want) {
			t.Errorf("%d commands were found under %s", ran, section)
		}
	}
	nobody := freeOffset(t)
	_, err = runCommand(t, "audit", "--data-dir", i.dir, "--port-offset", strconv.Itoa(nobody))
	if want := fmt.Sprintf("the event store at 127.0.0.1:%d does not answer: connection refused (--port-offset or --eventstore-url says where else it listens)",
		eventstorePorts.offset(nobody).grpc); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// tableOf is the table of the live build.
func tableOf(t *testing.T, pool *pgxpool.Pool, r consumer.Readable) string {
	t.Helper()
	at, err := consumer.NewReader(pool).Find(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return at.Table
}
