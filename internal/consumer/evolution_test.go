package consumer_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventlog/memorylog"
	"github.com/purserhq/purser/internal/fault"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// evolved is the schema of numbers after some years: Several numbers were once stored as one event, a Digit was renamed, and
// Noise means nothing any more.
type evolved struct {
	numbers
	latest *atomic.Int64 // version of a number that this build knows
}

func (evolved) Knows(eventType string) bool {
	return slices.Contains([]string{"Number", "Several", "Digit", "Noise"}, eventType)
}

func (s evolved) Decode(eventType string, version int, contentType string, data []byte) ([]proto.Message, error) {
	if int64(version) > s.latest.Load() {
		return nil, eventlog.ErrNewerVersion
	}
	var all []proto.Message
	for _, n := range strings.Split(string(data), ",") {
		if eventType == "Noise" {
			break
		}
		one, err := s.numbers.Decode("Number", 1, contentType, []byte(n))
		if err != nil {
			return nil, err
		}
		all = append(all, one...)
	}
	return all, nil
}

// part is a journal's row that tells the messages of one stored event apart.
type part struct {
	ID       string `db:"id,key"`
	Revision int64  `db:"revision,key"`
	Part     int    `db:"part,key"`
	Type     string `db:"type"`
	N        int64  `db:"n"`
}

// evolvedWorld has a log of evolved numbers, and a consumer of the accounts and of a journal of parts.
type evolvedWorld struct {
	*world
	parts  *consumer.Journal[part]
	latest *atomic.Int64
	reg    *prometheus.Registry
}

func newEvolvedWorld(t *testing.T) *evolvedWorld {
	t.Helper()
	w := &evolvedWorld{world: newWorld(t), latest: &atomic.Int64{}, reg: prometheus.NewRegistry()}
	w.latest.Store(1)
	w.log = &numberLog{Log: memorylog.New(evolved{latest: w.latest}), t: t}
	w.parts = &consumer.Journal[part]{
		Name: "parts", Version: 1, Categories: []string{"a"},
		Entries: func(e consumer.Event) []part {
			n := e.Message.(*wrapperspb.Int64Value).GetValue()
			if n < 0 {
				panic("negative")
			}
			return []part{{e.Key, int64(e.Revision), e.Part, e.Type, n}}
		},
	}
	c := consumer.New(w.pool, w.log, "test", []string{"a", "b", "c"}, []consumer.Model{w.accounts.Model(w.brackets), w.parts.Model()},
		slog.New(slog.DiscardHandler), consumer.NewMetrics(w.reg))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *evolvedWorld) store(stream, eventType string, version int, data string) {
	w.t.Helper()
	_, err := w.log.AppendRecorded(w.t.Context(), stream, w.log.last(stream), []eventlog.Recorded{{
		ID: uuid.New(), Type: eventType, Data: []byte(data),
		Metadata: fmt.Appendf(nil, `{"schemaVersion":%d,"occurredAt":"2020-01-02T03:04:05Z"}`, version),
	}})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *evolvedWorld) settled() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	if err := w.reached(ctx, w.parts, "", w.log.head()); err != nil {
		w.t.Fatal(err)
	}
	w.await("accounts", "", w.log.head())
}

// foldedAccount is an account with how far its streams are folded into it.
type foldedAccount struct {
	ID        string           `db:"id"`
	Seen      []int64          `db:"seen"`
	Revisions map[string]int64 `db:"_revisions"`
}

func (w *evolvedWorld) account(id string) foldedAccount {
	w.t.Helper()
	for _, a := range query[foldedAccount](w.world, "SELECT id, seen, _revisions FROM "+w.table(w.accounts)) {
		if a.ID == id {
			return a
		}
	}
	return foldedAccount{}
}

func (w *evolvedWorld) journal(id string) []part {
	w.t.Helper()
	return query[part](w.world, "SELECT "+consumer.Columns[part]()+" FROM "+w.table(w.parts)+" WHERE id = '"+id+"' ORDER BY revision, part")
}

func TestOldEventsAreFoldedAsTheEventsOfToday(t *testing.T) {
	w := newEvolvedWorld(t)
	w.store("a-k", "Several", 1, "1,2,3")
	w.store("a-k", "Digit", 1, "4")
	w.store("a-k", "Noise", 1, "")
	w.log.append("a-k", 5)
	w.settled()
	want := foldedAccount{"k", []int64{1, 2, 3, 4, 5}, map[string]int64{"a-k": 3}}
	if got := w.account("k"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	const today = "Int64Value" // the message's name, whatever it was stored as
	parts := []part{{"k", 0, 0, today, 1}, {"k", 0, 1, today, 2}, {"k", 0, 2, today, 3}, {"k", 1, 0, today, 4}, {"k", 3, 0, today, 5}}
	if got := w.journal("k"); !slices.Equal(got, parts) {
		t.Errorf("got %+v, want %+v", got, parts)
	}
}

// Of what one stored event reads as, all is applied or nothing.
func TestSplitEventIsAppliedAsOneUnit(t *testing.T) {
	w := newEvolvedWorld(t)
	w.log.append("a-bad", 1)
	w.store("a-bad", "Several", 1, "2,3,-1")
	w.log.append("a-bad", 4)
	w.log.append("a-good", 1)
	w.settled()
	want := foldedAccount{"bad", []int64{1}, map[string]int64{"a-bad": 0}}
	if got := w.account("bad"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := w.journal("bad"); len(got) != 1 || got[0].N != 1 {
		t.Errorf("the journal has %+v", got)
	}
	if got := w.account("good"); !slices.Equal(got.Seen, []int64{1}) {
		t.Errorf("got %+v", got)
	}
}

// An event of a newer version waits for a newer build, with all that comes after it, and parks nothing.
func TestNewerVersionPausesAndParksNothing(t *testing.T) {
	w := newEvolvedWorld(t)
	w.log.append("a-k", 1)
	w.settled()
	w.store("a-k", "Number", 2, "2")
	last := w.log.append("a-other", 3)
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := w.reached(short, w.accounts, "k", last); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_PROJECTION_LAG) {
		t.Errorf("got %v", err)
	}
	if parked := query[parkedKey](w.world, "SELECT key, position FROM consumer.parked"); len(parked) > 0 {
		t.Errorf("parked %v", parked)
	}
	w.latest.Store(2)
	w.settled()
	if got := w.account("k"); !slices.Equal(got.Seen, []int64{1, 2}) {
		t.Errorf("got %+v", got)
	}
}

// What a build does not know is passed over, and counted by a bounded number of names.
func TestUnknownTypesArePassedOverAndCounted(t *testing.T) {
	w := newEvolvedWorld(t)
	w.log.append("a-k", 1)
	w.store("a-k", "Novelty", 7, "not even read")
	w.store("a-k", "Novelty", 7, "")
	w.store("a-k", strings.Repeat("N", 65), 7, "")
	w.log.append("a-k", 2)
	w.store("c-k", "Foreign", 1, "")
	w.settled()
	want := foldedAccount{"k", []int64{1, 2}, map[string]int64{"a-k": 4}}
	if got := w.account("k"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, model := range []string{"accounts", "parts"} {
		w.becomes(model, map[string]float64{"Novelty": 2, "other": 1})
	}
	counts := map[string]float64{"Novelty": 2, "other": 1 + 30 - 19}
	for i := range 30 {
		w.store("a-k", fmt.Sprint("Novelty", i), 1, "")
		if i < 19 {
			counts[fmt.Sprint("Novelty", i)] = 1
		}
	}
	w.becomes("accounts", counts)
}

// What a build does not know is noted in a row that is there: the events after it are not missing any before them, so no key is
// folded anew for them, from what may be a million. It begins no row.
func TestUnknownTypesAreNoGaps(t *testing.T) {
	w := newEvolvedWorld(t)
	w.log.append("a-k", 1)
	w.settled()
	read := w.log.read.Load()
	for n := range int64(5) {
		w.store("a-k", "Novelty", 1, "")
		w.settled()
		w.log.append("a-k", n)
		w.settled()
	}
	w.store("a-k", "Novelty", 1, "")
	w.store("a-none", "Novelty", 1, "")
	w.settled()
	want := foldedAccount{"k", []int64{1, 0, 1, 2, 3, 4}, map[string]int64{"a-k": 11}}
	if got := w.account("k"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if n := w.log.read.Load() - read; n > 0 {
		t.Errorf("streams were read %d times", n)
	}
	if got := w.account("none"); got.ID != "" {
		t.Errorf("a row of nothing: %+v", got)
	}
	w.audited(0)
}

// becomes waits until a model has passed over so many events, by type: they are counted just after the commit.
func (w *evolvedWorld) becomes(model string, want map[string]float64) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !maps.Equal(w.unknown(model), want); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s has passed over %v, want %v", model, w.unknown(model), want)
		}
	}
}

// unknown are the counts of a model, by event type.
func (w *evolvedWorld) unknown(model string) map[string]float64 {
	w.t.Helper()
	families, err := w.reg.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if f.GetName() == "purser_consumer_unknown_events_total" && labels["model"] == model {
				counts[labels["event_type"]] = m.GetCounter().GetValue()
			}
		}
	}
	return counts
}
