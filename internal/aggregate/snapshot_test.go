package aggregate

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/purserhq/purser/internal/domain/stock"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventlog/memorylog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/secret"
	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
)

// warehouse is the stock of a product "mug", which is long with very little.
type warehouse struct {
	log    *memorylog.Log
	secret *secret.Secret
	long   Long
	now    time.Time
	warned bytes.Buffer
}

func newWarehouse(t *testing.T) *warehouse {
	s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	return openWarehouse(s)
}

func openWarehouse(s *secret.Secret) *warehouse {
	w := &warehouse{log: memorylog.New(eventschema.New()), secret: s, now: time.Now()}
	w.long = Long{
		Version: 1, SnapshotEvery: 3, Window: 24 * time.Hour, Requests: 2, KeyedRequests: 3, Keyed: stock.OfReservation,
		Log: slog.New(slog.NewTextHandler(&w.warned, nil)),
	}
	return w
}

// replica is a handler with an empty memory.
func (w *warehouse) replica(log Log) *Handler[stock.State] {
	return NewLong[stock.State](log, eventschema.Stock, w.secret, func() time.Time { return w.now }, w.long)
}

// commanded makes a command that can be settled together with others.
func commanded(h *Handler[stock.State], cmd Command, decide Decide[stock.State]) *job[stock.State] {
	return &job[stock.State]{ctx: context.Background(), requestID: cmd.GetRequestId(), take: h.carryOut(cmd, decide), answer: make(chan answer, 1)}
}

func receive(h *Handler[stock.State], id, request string, quantity int64) *job[stock.State] {
	cmd := &inventoryv1.ReceiveStockRequest{RequestId: request, ProductId: id, Quantity: quantity}
	return commanded(h, cmd, func(s *stock.State) ([]proto.Message, error) {
		return s.Receive(stock.Receive{Product: id, Quantity: quantity})
	})
}

func reserve(h *Handler[stock.State], request, orderID string, quantity int64) *job[stock.State] {
	cmd := &inventoryv1.ReserveStockRequest{RequestId: request, ProductId: "mug", OrderId: orderID, Quantity: quantity}
	return commanded(h, cmd, func(s *stock.State) ([]proto.Message, error) {
		return s.Reserve(stock.Reserve{Product: "mug", Order: orderID, Quantity: quantity})
	})
}

func release(h *Handler[stock.State], request, orderID string) *job[stock.State] {
	cmd := &inventoryv1.ReleaseReservationRequest{RequestId: request, ProductId: "mug", OrderId: orderID}
	return commanded(h, cmd, func(s *stock.State) ([]proto.Message, error) {
		return s.Release(stock.Release{Product: "mug", Order: orderID})
	})
}

// settle has commands settled together, with the snapshot that may be due after them.
func settle(t rapid.TB, h *Handler[stock.State], id string, jobs ...*job[stock.State]) (answers []answer) {
	if !h.settle(h.entity(id), jobs) {
		t.Fatal("they can't be settled together")
	}
	h.keep(h.entity(id))
	for _, j := range jobs {
		answers = append(answers, <-j.answer)
	}
	return answers
}

// fill receives something so many times.
func (w *warehouse) fill(t *testing.T, h *Handler[stock.State], id string, times int, quantity int64) {
	t.Helper()
	for range times {
		if a := settle(t, h, id, receive(h, id, uuid.NewString(), quantity)); a[0].err != nil {
			t.Fatal(a[0].err)
		}
	}
}

func (w *warehouse) stream(t rapid.TB, name string) []eventlog.Recorded {
	events, err := w.log.Read(context.Background(), name, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// pastLog is a log as it was at a revision of its only stream, with one of the stream's snapshots, or none.
type pastLog struct {
	*memorylog.Log
	revision eventlog.Revision
	snapshot *eventlog.Recorded
	read     *int // counts events and snapshots
}

func (l pastLog) Read(ctx context.Context, stream string, from eventlog.Revision, max int) ([]eventlog.Recorded, error) {
	events, err := l.Log.Read(ctx, stream, from, max)
	events = slices.DeleteFunc(slices.Clone(events), func(r eventlog.Recorded) bool { return r.Revision > l.revision })
	*l.read += len(events)
	return events, err
}

func (l pastLog) Latest(context.Context, string) (eventlog.Recorded, bool, error) {
	if l.snapshot == nil {
		return eventlog.Recorded{}, false, nil
	}
	*l.read++
	return *l.snapshot, true, nil
}

// caughtUp is an entity as a replica with an empty memory sees it in a log, and how much it had to read.
func (w *warehouse) caughtUp(t rapid.TB, l pastLog) (e *entity[stock.State], read int) {
	l.Log, l.read = w.log, &read
	h := w.replica(l)
	e = h.newEntity("mug")
	if err := h.catchUp(context.Background(), e); err != nil {
		t.Fatal(err)
	}
	return e, read
}

var orders = []string{"1", "2", "3", "4"}

// describeEntity writes down all that decisions may depend on.
func describeEntity(t rapid.TB, e *entity[stock.State]) string {
	state, err := json.Marshal(e.state)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "revision %d at %d, last %s\n%s\n", e.revision, e.position, e.last, state)
	for _, o := range orders { // of which marks hold, which the state keeps to itself
		released, err := e.state.Release(stock.Release{Order: o})
		fmt.Fprintln(&b, "order", o, len(released), err)
	}
	for _, r := range e.requests.all() {
		fmt.Fprintf(&b, "request %+v %v\n", *r, e.requests.byID[r.ID] == r)
	}
	fmt.Fprintln(&b, len(e.requests.byID), "requests")
	return b.String()
}

// act has drawn commands settled. What one of them is refused for, or repeats, is as good as what it does.
func (w *warehouse) act(t *rapid.T, h *Handler[stock.State]) {
	w.now = w.now.Add(rapid.SampledFrom([]time.Duration{0, time.Second, 6 * time.Minute, 16 * time.Minute, -time.Minute, 25 * time.Hour}).Draw(t, "later"))
	var jobs []*job[stock.State]
	for range rapid.IntRange(1, 3).Draw(t, "together") {
		request, order := fmt.Sprint("r", rapid.IntRange(0, 9).Draw(t, "request")), rapid.SampledFrom(orders).Draw(t, "order")
		switch rapid.IntRange(0, 3).Draw(t, "what") {
		case 0:
			jobs = append(jobs, receive(h, "mug", request, 5))
		case 1:
			jobs = append(jobs, release(h, request, order))
		default:
			jobs = append(jobs, reserve(h, request, order, rapid.Int64Range(1, 4).Draw(t, "quantity")))
		}
	}
	settle(t, h, "mug", jobs...)
}

// sinceSnapshot is how many events there are after the last snapshot, and how many make another one due: more after one that is large.
func (w *warehouse) sinceSnapshot(t rapid.TB, last eventlog.Revision, snapshots []eventlog.Recorded) (since, due int) {
	at, due := eventlog.NoStream, w.long.SnapshotEvery
	for _, r := range snapshots {
		packed, err := gzip.NewReader(bytes.NewReader(r.Data))
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(packed)
		if err != nil {
			t.Fatal(err)
		}
		var s snapshot[stock.State]
		if err := json.Unmarshal(data, &s); err != nil {
			t.Fatal(err)
		}
		at, due = s.Revision, max(due, len(data)/eventsWorth)
	}
	return int(last - at), due
}

// A state is the same whether it was folded from the start, from any snapshot, or kept in memory while others appended;
// at every revision, also where the snapshot is of events that the log has lost.
func TestAStateIsTheSameHoweverItIsMade(t *testing.T) {
	s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		w := openWarehouse(s)
		replicas := []*Handler[stock.State]{w.replica(w.log), w.replica(w.log)}
		whole := map[eventlog.Revision]string{} // folds from the start
		fold := func(r eventlog.Revision) string {
			if whole[r] == "" {
				e, _ := w.caughtUp(t, pastLog{revision: r})
				whole[r] = describeEntity(t, e)
			}
			return whole[r]
		}
		for range rapid.IntRange(1, 25).Draw(t, "commands") {
			h := replicas[rapid.IntRange(0, 1).Draw(t, "replica")]
			w.act(t, h)
			kept := h.entity("mug")
			if got := describeEntity(t, kept); got != fold(kept.revision) {
				t.Fatalf("in memory:\n%s\nfrom the start:\n%s", got, fold(kept.revision))
			}
			ahead := &entity[stock.State]{folded: kept.folded}
			if ahead.state = kept.ahead; ahead.state == nil {
				ahead.state = kept.state.Clone()
			}
			if got := describeEntity(t, ahead); got != fold(kept.revision) {
				t.Fatalf("copied:\n%s\nfrom the start:\n%s", got, fold(kept.revision))
			}
		}
		snapshots := w.stream(t, "snapshot_stock-mug")
		last := eventlog.Revision(len(w.stream(t, "stock-mug")) - 1)
		if since, due := w.sinceSnapshot(t, last, snapshots); since >= due {
			t.Fatalf("%d events since the last of %d snapshots, of which %d are worth one", since, len(snapshots), due)
		}
		for r := range last + 1 {
			for i := range snapshots {
				e, _ := w.caughtUp(t, pastLog{revision: r, snapshot: &snapshots[i]})
				if got := describeEntity(t, e); got != fold(r) {
					t.Fatalf("revision %d, from snapshot %s:\n%s\nfrom the start:\n%s", r, snapshots[i].Data, got, fold(r))
				}
			}
		}
	})
}

func TestASnapshotOfAnotherSchemaIsIgnoredAndRenewed(t *testing.T) {
	w := newWarehouse(t)
	old := w.replica(w.log)
	w.fill(t, old, "mug", 7, 1)
	w.fill(t, old, "pen", 2, 1) // too short for a snapshot
	w.fill(t, old, "jar", 3, 1)
	w.long.Version = 2
	current := w.replica(w.log)
	w.fill(t, current, "jar", 1, 1) // folded from its start, with a snapshot of today at once
	before := w.stream(t, "snapshot_stock-mug")
	of := func(stream string) *eventlog.Recorded {
		all := w.stream(t, stream)
		return &all[len(all)-1]
	}
	e, read := w.caughtUp(t, pastLog{revision: 6, snapshot: of("snapshot_stock-mug")})
	if e.state.OnHand != 7 || read != 1+7 {
		t.Errorf("%d on hand after %d reads, want all events", e.state.OnHand, read)
	}
	jars := len(w.stream(t, "snapshot_stock-jar"))
	if err := current.Renew(t.Context(), w.log); err != nil {
		t.Fatal(err)
	}
	after := w.stream(t, "snapshot_stock-mug")
	if len(after) != len(before)+1 || len(w.stream(t, "snapshot_stock-jar")) != jars || len(w.stream(t, "snapshot_stock-pen")) != 0 {
		t.Errorf("%d snapshots, were %d; and of those that need none", len(after), len(before))
	}
	e, read = w.caughtUp(t, pastLog{revision: 6, snapshot: of("snapshot_stock-mug")})
	if e.state.OnHand != 7 || read != 1+1 {
		t.Errorf("%d on hand after %d reads, want only the snapshot and its last event", e.state.OnHand, read)
	}
	if err := current.Renew(t.Context(), w.log); err != nil || len(w.stream(t, "snapshot_stock-mug")) != len(after) {
		t.Errorf("renewed again: %v", err)
	}
}

// A stream that can't be folded keeps only its own snapshot from being renewed.
func TestRenewingPassesOverWhatCantBeFolded(t *testing.T) {
	w := newWarehouse(t)
	old := w.replica(w.log)
	w.fill(t, old, "bad", 3, 1)
	w.fill(t, old, "mug", 3, 1)
	if _, err := w.log.AppendRecorded(t.Context(), "stock-bad", 2, []eventlog.Recorded{{ID: uuid.New(), Type: "Unheard", Metadata: []byte("{}")}}); err != nil {
		t.Fatal(err)
	}
	w.long.Version = 2
	if err := w.replica(w.log).Renew(t.Context(), w.log); err != nil {
		t.Fatal(err)
	}
	if len(w.stream(t, "snapshot_stock-mug")) != 2 || len(w.stream(t, "snapshot_stock-bad")) != 1 || !strings.Contains(w.warned.String(), "stock-bad") {
		t.Errorf("logged %s", w.warned.String())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.replica(w.log).Renew(ended, w.log); err == nil {
		t.Error("what has ended has not renewed anything")
	}
}

// slowLog lets two replicas write snapshots at once: each waits at its append until the other is there too.
type slowLog struct {
	*memorylog.Log
	both *sync.WaitGroup
}

func (l slowLog) AppendRecorded(ctx context.Context, stream string, expected eventlog.Revision, events []eventlog.Recorded) (eventlog.Appended, error) {
	if strings.HasPrefix(stream, "snapshot_") {
		l.both.Done()
		l.both.Wait()
	}
	return l.Log.AppendRecorded(ctx, stream, expected, events)
}

func TestTwoReplicasWriteASnapshotAtOnce(t *testing.T) {
	w := newWarehouse(t)
	w.fill(t, w.replica(w.log), "mug", 4, 1) // of which the first three are in one
	w.long.SnapshotEvery = 1
	both := &sync.WaitGroup{}
	both.Add(2)
	var wg sync.WaitGroup
	for range 2 {
		h := w.replica(slowLog{w.log, both})
		wg.Go(func() {
			e := h.newEntity("mug")
			if err := h.catchUp(context.Background(), e); err != nil {
				t.Error(err)
			}
			h.keep(e)
			if e.snapshot != 3 {
				t.Errorf("thinks of a snapshot at %d", e.snapshot)
			}
		})
	}
	wg.Wait()
	snapshots := w.stream(t, "snapshot_stock-mug")
	if len(snapshots) != 2 || w.warned.Len() > 0 {
		t.Errorf("%d snapshots, logged %q", len(snapshots), w.warned.String())
	}
	if e, _ := w.caughtUp(t, pastLog{revision: 3, snapshot: &snapshots[1]}); e.state.OnHand != 4 || e.snapshot != 3 {
		t.Errorf("%+v", e.folded)
	}
}

// The log was set back, and has grown again: to less than its snapshot is of, and then to as much.
func TestASnapshotOfWhatTheLogHasLostIsIgnored(t *testing.T) {
	w := newWarehouse(t)
	w.fill(t, w.replica(w.log), "mug", 3, 1)
	lost := w.stream(t, "snapshot_stock-mug")[0]
	w.log.SetBack(0)
	if _, err := w.log.AppendRecorded(t.Context(), "snapshot_stock-mug", eventlog.NoStream, []eventlog.Recorded{lost}); err != nil {
		t.Fatal(err)
	}
	h := w.replica(w.log)
	w.fill(t, h, "mug", 2, 10)
	if s, revision, err := h.Load(t.Context(), "mug"); err != nil || s.OnHand != 20 || revision != 1 {
		t.Errorf("%+v at %d, %v", s, revision, err)
	}
	w.fill(t, h, "mug", 1, 10)
	again := w.stream(t, "snapshot_stock-mug")
	for snapshot, reads := range map[*eventlog.Recorded]int{&lost: 1 + 1 + 3, &again[len(again)-1]: 1 + 1} {
		if e, read := w.caughtUp(t, pastLog{revision: 2, snapshot: snapshot}); e.state.OnHand != 30 || read != reads {
			t.Errorf("%+v after %d reads, want %d", e.state, read, reads)
		}
	}
}

// A command that expects nothing is not answered as if there were nothing, only because all there is is in a snapshot.
func TestCreateSeesWhatASnapshotHas(t *testing.T) {
	w := newWarehouse(t)
	w.fill(t, w.replica(w.log), "mug", 3, 1)
	req := &inventoryv1.ReceiveStockRequest{RequestId: uuid.NewString(), ProductId: "mug"}
	var seen int64
	done, err := w.replica(w.log).Create(t.Context(), "mug", req, func(s *stock.State) ([]proto.Message, error) {
		seen = s.OnHand
		return nil, nil
	})
	if err != nil || seen != 3 || done.Etag() != `"2"` {
		t.Errorf("decided on %d, %+v, %v", seen, done, err)
	}
}

// A repeat that comes with the very command that drives it out of the memory is a repeat still.
func TestARepeatAtTheEndOfTheMemory(t *testing.T) {
	w := newWarehouse(t)
	w.long.Requests = 1
	h := w.replica(w.log)
	settle(t, h, "mug", receive(h, "mug", "old", 1))
	for i, a := range settle(t, h, "mug", receive(h, "mug", "new", 1), receive(h, "mug", "old", 1)) {
		if a.err != nil || a.done.Repeat != (i == 1) {
			t.Errorf("%d: %+v", i, a)
		}
	}
	if n := len(w.stream(t, "stock-mug")); n != 2 {
		t.Errorf("%d events, want 2", n)
	}
}

func TestASnapshotThatIsTooLargeIsNotWritten(t *testing.T) {
	w := newWarehouse(t)
	const many = 30_000
	events := make([]eventlog.NewEvent, many)
	for i := range events {
		order := uuid.NewString() + uuid.NewString()[:28] // which can't be packed well
		events[i] = eventlog.NewEvent{ID: uuid.New(), Message: &stockevent.StockReserved{ProductId: "mug", OrderId: order, Quantity: 1}}
	}
	if _, err := w.log.Append(t.Context(), "stock-mug", eventlog.NoStream, events); err != nil {
		t.Fatal(err)
	}
	h := w.replica(w.log)
	w.fill(t, h, "mug", 2, 1)
	if n := len(w.stream(t, "snapshot_stock-mug")); n != 0 {
		t.Errorf("%d snapshots", n)
	}
	if n := strings.Count(w.warned.String(), "can't write a snapshot"); n != 1 {
		t.Errorf("%d warnings, want one until as many events are due again: %s", n, w.warned.String())
	}
}
