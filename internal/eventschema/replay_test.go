package eventschema_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/domain/catalog"
	"github.com/purserhq/purser/internal/domain/fulfillment"
	"github.com/purserhq/purser/internal/domain/order"
	"github.com/purserhq/purser/internal/domain/payment"
	"github.com/purserhq/purser/internal/domain/stock"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventlog/memorylog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	"github.com/purserhq/purser/internal/readmodel"
)

var update = flag.Bool("update", false, "write down what testdata/replay/histories.txt adds up to, as what it must add up to")

// state is what a domain's events are folded into.
type state interface {
	Evolve(m proto.Message, at time.Time)
}

// states are the states of every domain, by the streams that they fold: those of a category, or all of an order.
func states() map[string][]func() state {
	return map[string][]func() state{
		eventschema.Product:     {func() state { return &catalog.State{} }},
		eventschema.Order:       {func() state { return &order.State{} }, func() state { return &fulfillment.State{} }},
		eventschema.Stock:       {func() state { return &stock.State{} }},
		eventschema.Payment:     {func() state { return &payment.State{} }, func() state { return &fulfillment.State{} }},
		eventschema.Fulfillment: {func() state { return &fulfillment.Answers{} }, func() state { return &fulfillment.State{} }},
	}
}

// Every event ever stored, in every version, is folded by every decider, the saga, every read model and report, and adds
// up to what it always did. After a change of what is derived: go test ./internal/eventschema -run Replay -update, and
// look at the difference.
func TestReplay(t *testing.T) {
	log := replayedLog(t)
	got := map[string]any{}
	for name, s := range foldStates(t, log) {
		got[name] = shown(t, s)
	}
	maps.Copy(got, tables(t, log))
	const file = "testdata/replay/golden.json"
	if *update {
		if err := os.WriteFile(file, oneALine(t, got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]any
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if !reflect.DeepEqual(got[name], want[name]) {
			t.Errorf("%s\n got %v\nwant %v", name, got[name], want[name])
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("there is no %s", name)
	}
}

// replayedLog is a log with the histories of testdata, in which every event of the corpus occurs.
func replayedLog(t *testing.T) *memorylog.Log {
	t.Helper()
	histories, err := os.ReadFile("testdata/replay/histories.txt")
	if err != nil {
		t.Fatal(err)
	}
	unused := map[string]bool{}
	files, err := filepath.Glob("testdata/*.v*.json")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f, ".reads.json") {
			unused[strings.TrimSuffix(filepath.Base(f), ".json")] = true
		}
	}
	log := memorylog.New(eventschema.New())
	revisions := map[string]eventlog.Revision{}
	when := time.Date(2020, 1, 31, 9, 0, 0, 0, time.UTC)
	for line := range strings.Lines(string(histories)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		stream, name := words[0], words[1]
		delete(unused, name)
		when = when.Add(time.Minute)
		e := storedEvent(t, stream, name, when, words[2:])
		e.ID = uuid.NewSHA1(uuid.Nil, fmt.Append(nil, stream, revisions[stream]))
		if _, err := log.AppendRecorded(t.Context(), stream, revisions[stream]-1, []eventlog.Recorded{e}); err != nil {
			t.Fatal(err)
		}
		revisions[stream]++
	}
	for name := range unused {
		t.Errorf("%s occurs in no history", name)
	}
	return log
}

// storedEvent is an event of the corpus, with some of its values replaced.
func storedEvent(t *testing.T, stream, name string, when time.Time, replace []string) eventlog.Recorded {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	category, key, _ := eventlog.SplitStream(stream)
	if category != eventschema.Product && category != eventschema.Stock {
		replace = append(replace, "o-1="+key)
	}
	for _, r := range replace {
		was, is, _ := strings.Cut(r, "=")
		if !bytes.Contains(data, []byte(`"`+was+`"`)) {
			t.Fatalf("%s has no %s", name, was)
		}
		data = bytes.ReplaceAll(data, []byte(`"`+was+`"`), []byte(`"`+is+`"`))
	}
	eventType, version, _ := strings.Cut(name, ".v")
	return eventlog.Recorded{
		Type: eventType, ContentType: eventschema.ContentTypeJSON, Data: data,
		Metadata: fmt.Appendf(nil, `{"schemaVersion":%s,"occurredAt":%q,"actor":"ann"}`, version, when.Format(time.RFC3339)),
	}
}

// foldStates folds the log into every domain's states, by their types and streams; the saga's by its order.
func foldStates(t *testing.T, log *memorylog.Log) map[string]state {
	t.Helper()
	folded := map[string]state{}
	for _, r := range log.Events() {
		e, err := log.Decode(r)
		if err != nil {
			t.Fatal(err)
		}
		category, key, _ := eventlog.SplitStream(r.Stream)
		for _, empty := range states()[category] {
			s := empty()
			name := fmt.Sprintf("%T %s", s, r.Stream)
			if _, saga := s.(*fulfillment.State); saga {
				name = fmt.Sprintf("%T %s", s, key)
			}
			if folded[name] == nil {
				folded[name] = s
			}
			for _, m := range e.Messages {
				folded[name].Evolve(m, e.Meta.OccurredAt)
			}
		}
	}
	return folded
}

// shown is a state as JSON; the saga's with what is on its to-do list.
func shown(t *testing.T, s state) any {
	t.Helper()
	var show any = s
	switch s := s.(type) {
	case *fulfillment.State:
		show = map[string]any{"state": s, "todo": s.ToDo()}
	case *fulfillment.Answers:
		var refusals []string
		for item := range s.Refusals {
			refusals = append(refusals, fmt.Sprint(item.Step, " ", item.ProductID))
		}
		slices.Sort(refusals)
		show = map[string]any{"lines": s.Lines, "refusals": refusals}
	}
	data, err := json.Marshal(show)
	if err != nil {
		t.Fatal(err)
	}
	var plain any
	if err := json.Unmarshal(data, &plain); err != nil {
		t.Fatal(err)
	}
	return plain
}

// tables are the rows of every read model and report, kept as the projector does.
func tables(t *testing.T, log *memorylog.Log) map[string]any {
	t.Helper()
	config, err := pgxpool.ParseConfig(pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 20 // each model needs one
	config.ConnConfig.RuntimeParams["timezone"] = "UTC"
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	c := consumer.New(pool, log, "projector", eventschema.Categories(), readmodel.Models(), slog.New(slog.DiscardHandler), consumer.NewMetrics(prometheus.NewRegistry()))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for c.Ready(ctx) != nil {
		if ctx.Err() != nil {
			t.Fatal(c.Ready(ctx))
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, p := range rows(t, pool, "SELECT to_jsonb(p) FROM consumer.parked AS p") {
		t.Errorf("parked: %v", p)
	}
	all := map[string]any{}
	for _, table := range rows(t, pool, `SELECT schemaname || '.' || tablename FROM pg_tables JOIN consumer.builds ON build = schemaname ORDER BY 1`) {
		_, name, _ := strings.Cut(table.(string), ".")
		found := rows(t, pool, "SELECT to_jsonb(r) - '{_revisions,_partition}'::text[] FROM "+table.(string)+" AS r ORDER BY r::text COLLATE \"C\"")
		if len(found) == 0 {
			t.Errorf("no history adds a row to %s", name)
		}
		for i, row := range found {
			all[fmt.Sprintf("%s #%02d", name, i+1)] = row
		}
	}
	return all
}

func rows(t *testing.T, pool *pgxpool.Pool, sql string) []any {
	t.Helper()
	result, err := pool.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	found, err := pgx.CollectRows(result, pgx.RowTo[any])
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func oneALine(t *testing.T, entries map[string]any) []byte {
	t.Helper()
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		value, err := json.Marshal(entries[name])
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%q: %s", name, value))
	}
	return []byte("{\n" + strings.Join(lines, ",\n") + "\n}\n")
}

// Every state of the domain that folds events is among those that the corpus is replayed through.
func TestReplayMissesNoState(t *testing.T) {
	replayed := map[string]bool{}
	for _, all := range states() {
		for _, empty := range all {
			replayed[strings.TrimPrefix(fmt.Sprintf("%T", empty()), "*")] = true
		}
	}
	files, err := filepath.Glob("../domain/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv == nil || f.Name.Name != "Evolve" || strings.HasSuffix(file, "_test.go") {
				continue
			}
			if pointer, ok := f.Recv.List[0].Type.(*ast.StarExpr); ok {
				found[fmt.Sprint(parsed.Name, ".", pointer.X)] = true
			}
		}
	}
	if !maps.Equal(found, replayed) {
		t.Errorf("the domain folds events into %v, and the corpus is replayed through %v", found, replayed)
	}
}
