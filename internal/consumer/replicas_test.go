package consumer_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
)

const (
	partitions = 16
	// handOver is how long it may take until others run what one has given up: less than a lease.
	handOver = 3 * time.Second
	// takeOver is how long it may take until others run what one has left without a word: a lease, and some time for a busy
	// machine.
	takeOver = 10 * time.Second
)

// shares waits until replicas run all partitions of the accounts, in shares of these sizes, whoever has which.
func (w *world) shares(within time.Duration, replicas []*consumer.Consumer, want ...int) {
	w.t.Helper()
	slices.Sort(want)
	for deadline := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		runs := map[int]int{}
		var sizes []int
		for _, r := range replicas {
			level := r.Level("accounts")
			sizes = append(sizes, len(level))
			for _, p := range level {
				runs[p]++
			}
		}
		slices.Sort(sizes)
		if len(runs) == partitions && slices.Equal(sizes, want) {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("after %s the shares are %v, of %d partitions; want %v", within, sizes, len(runs), want)
		}
	}
}

// busy appends numbers to some keys until the returned function is called.
func (w *world) busy() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var appending sync.WaitGroup
	appending.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			w.log.append(fmt.Sprintf("%s-k%d", []string{"a", "b", "c"}[i%3], i%40), int64(i%11))
			time.Sleep(2 * time.Millisecond)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); appending.Wait() })
	w.t.Cleanup(stop)
	return stop
}

func TestReplicasShareThePartitionsEvenly(t *testing.T) {
	w := newWorld(t)
	defer w.busy()()
	var all []*consumer.Consumer
	var stops []func() error
	for _, want := range [][]int{{16}, {8, 8}, {6, 5, 5}, {4, 4, 4, 4}, {4, 3, 3, 3, 3}} { // nobody is starved
		c, stop := w.run(w.models()...)
		all, stops = append(all, c), append(stops, stop)
		w.shares(2*handOver, all, want...)
	}
	for _, want := range [][]int{{4, 4, 4, 4}, {6, 5, 5}, {8, 8}} { // one that stops hands over at once
		if err := stops[len(all)-1](); err != nil {
			t.Fatal(err)
		}
		all = all[:len(all)-1]
		w.shares(handOver, all, want...)
	}
	w.settled()
	w.eventually(func() bool { return all[0].Ready(t.Context()) == nil && all[1].Ready(t.Context()) == nil })
}

// One that is cut off from Postgres, in the midst of a transaction, loses its partitions to the others. What it had on its way
// changes nothing when it arrives after all, and the replica takes its share again.
func TestAReplicaThatIsCutOffLosesItsPartitions(t *testing.T) {
	for name, c := range map[string]struct {
		cut  func(*wire)
		idle bool // there is nothing to apply
	}{
		"at any moment":               {(*wire).cut, false},
		"just before it commits":      {(*wire).cutAtCommit, false},
		"while it extends its leases": {(*wire).cutAtCommit, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			link := newWire(t, w.pool.Config().ConnConfig)
			all := make([]*consumer.Consumer, 3)
			all[0], _ = w.run(w.models()...)
			all[1], _ = w.run(w.models()...)
			all[2], _ = w.runOn(link.pool(t), w.log, w.models()...)
			w.shares(2*handOver, all, 6, 5, 5)
			var stop func()
			if !c.idle {
				stop = w.busy()
				time.Sleep(100 * time.Millisecond) // work is under way
			}
			c.cut(link)
			w.eventually(link.isCut)
			if c.idle {
				stop = w.busy()
			}
			w.shares(takeOver, all, 0, 8, 8)
			w.settled()
			if err := all[2].Ready(t.Context()); err == nil {
				t.Error("it is ready without its Postgres")
			}
			link.mend()
			w.shares(takeOver, all, 6, 5, 5)
			stop()
			w.settled()
			w.check()
			w.audited(0)
		})
	}
}

// One that is cut off while its batch has locks on rows, and has not come to the checkpoints, holds up nobody who takes over.
func TestAReplicaCutOffAmongItsWritesHoldsUpNobody(t *testing.T) {
	for name, c := range map[string]struct {
		filled    bool  // before there is anything to write
		middle    int64 // of the numbers
		parked    int
		statement string
	}{
		"as it looks for a bad value":  {true, tooLarge, 1, "release savepoint"},
		"as it copies rows to a build": {false, 2, 0, "UPDATE consumer.checkpoints AS c"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			model := w.accounts.Model(w.brackets, w.wishes)
			if c.filled {
				_, stop := w.run(model)
				w.await("accounts", "", w.log.append("a-k", 1))
				if err := stop(); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 40 { // so many that the one in the middle is not alone in its batch
				n := int64(2)
				if i == 20 {
					n = c.middle
				}
				w.log.append(fmt.Sprintf("a-k%d", i), n)
			}
			link := newWire(t, w.pool.Config().ConnConfig)
			far := link.pool(t)
			defer link.mend()
			link.cutAt(c.statement)
			w.runOn(far, w.log, model)
			w.eventually(link.isCut)
			next, _ := w.run(model)
			w.shares(2*takeOver, []*consumer.Consumer{next}, partitions)
			w.await("accounts", "", w.log.head())
			w.audited(c.parked)
		})
	}
}

// One that is cut off from the event store leaves its partitions to the others, and one that has never heard of it takes none.
func TestAReplicaThatDoesNotHearOfTheLogLeavesItsPartitions(t *testing.T) {
	w := newWorld(t)
	far, never := newFarLog(w.log), newFarLog(w.log)
	never.cut()
	all := make([]*consumer.Consumer, 3)
	all[0], _ = w.run(w.models()...)
	all[1], _ = w.runOn(w.pool, far, w.models()...)
	all[2], _ = w.runOn(w.pool, never, w.models()...)
	stop := w.busy()
	w.shares(2*handOver, all, 0, 8, 8)
	far.cut()
	w.shares(2*takeOver, all, 0, 0, 16)
	w.settled()
	for i, deaf := range all[1:] {
		if err := deaf.Ready(t.Context()); err == nil {
			t.Errorf("replica %d is ready without the log", i+1)
		}
	}
	far.mend()
	never.mend()
	w.shares(takeOver, all, 6, 5, 5)
	stop()
	w.settled()
	w.check()
}

// farLog is the log as a replica sees it that may be cut off from it.
type farLog struct {
	*numberLog

	mu   sync.Mutex
	link context.Context // ends with the link
	cut  func()
}

func newFarLog(log *numberLog) *farLog {
	l := &farLog{numberLog: log}
	l.mend()
	return l
}

func (l *farLog) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.link, l.cut = context.WithCancel(context.Background())
}

// linked is a context that ends with the link, too. It waits for there to be one.
func (l *farLog) linked(ctx context.Context) (context.Context, context.CancelFunc, error) {
	for {
		l.mu.Lock()
		link := l.link
		l.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case link.Err() == nil:
			linked, cancel := context.WithCancel(ctx)
			stop := context.AfterFunc(link, cancel)
			return linked, func() { stop(); cancel() }, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (l *farLog) Head(ctx context.Context) (eventlog.Position, error) {
	linked, cancel, err := l.linked(ctx)
	if err != nil {
		return 0, err
	}
	defer cancel()
	return l.numberLog.Head(linked)
}

func (l *farLog) Identity(ctx context.Context) (string, error) {
	linked, cancel, err := l.linked(ctx)
	if err != nil {
		return "", err
	}
	defer cancel()
	return l.numberLog.Identity(linked)
}

func (l *farLog) Subscribe(ctx context.Context, categories []string, after eventlog.Position, deliver func(context.Context, eventlog.Delivery) error) error {
	for {
		linked, cancel, err := l.linked(ctx)
		if err != nil {
			return err
		}
		err = l.numberLog.Subscribe(linked, categories, after, func(_ context.Context, d eventlog.Delivery) error {
			after = d.Position
			return deliver(ctx, d)
		})
		lost := linked.Err() != nil
		cancel()
		if ctx.Err() != nil || !lost {
			return err
		}
		if err := deliver(ctx, eventlog.Delivery{Interrupted: err, Position: after}); err != nil {
			return err
		}
	}
}

// A partition that waits for a newer build holds up no other, and is with them again when it is level.
func TestAPartitionThatWaitsHoldsUpNoOther(t *testing.T) {
	w := newEvolvedWorld(t)
	keys := map[string]int64{}
	for i := range 60 {
		w.log.append(fmt.Sprintf("a-k%d", i), 1)
	}
	w.settled()
	for _, k := range query[keyedPartition](w.world, "SELECT id, _partition FROM "+w.table(w.accounts)) {
		keys[k.ID] = k.Partition
	}
	w.onlyTheFeed()
	w.store("a-k0", "Number", 2, "2")
	waiting := w.log.head()
	var last eventlog.Position
	for key := range keys {
		last = w.log.append("a-"+key, 3)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for key, partition := range keys {
		if partition == keys["k0"] {
			continue
		}
		for _, r := range []consumer.Readable{w.accounts, w.parts} {
			if err := w.reached(ctx, r, key, last); err != nil {
				t.Fatalf("%s, which need not wait: %v", key, err)
			}
		}
	}
	for _, c := range query[checkpoint](w.world, "SELECT partition, position FROM consumer.checkpoints") {
		if c.Partition == keys["k0"] && c.Position >= int64(waiting) {
			t.Errorf("the partition that waits for position %d is at %d", waiting, c.Position)
		}
	}
	w.latest.Store(2)
	w.settled()
	if got := w.account("k0"); !slices.Equal(got.Seen, []int64{1, 2, 3}) {
		t.Errorf("got %+v", got)
	}
	w.onlyTheFeed()
}

type keyedPartition struct {
	ID        string `db:"id"`
	Partition int64  `db:"_partition"`
}

type checkpoint struct {
	Partition int64 `db:"partition"`
	Position  int64 `db:"position"`
}

// onlyTheFeed waits until all partitions of the one consumer move together.
func (w *world) onlyTheFeed() {
	w.t.Helper()
	w.eventually(func() bool { return w.log.subscriptions.Load() == 1 })
}

// A model that can't keep up with the log is cut off from what the others follow, who flow on, and reads by itself what it has
// missed.
func TestAModelThatIsSlowHoldsUpNoOther(t *testing.T) {
	w := newWorld(t)
	w.run(w.models()...)
	w.log.append("a-k", 1)
	w.settled()
	w.onlyTheFeed()
	subscribed := w.log.subscribed.Load()

	lock, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := lock.Exec(t.Context(), "LOCK TABLE "+w.table(w.accounts)); err != nil {
		t.Fatal(err)
	}
	w.log.append("a-k", 1)
	w.eventually(func() bool { // it waits for the lock
		var waits bool
		err := w.pool.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = $1::regclass)", w.table(w.accounts)).Scan(&waits)
		return err == nil && waits
	})
	for stream := range 50 { // more than its queue holds
		var numbers []eventlog.NewEvent
		for n := range 100 {
			numbers = append(numbers, eventlog.NewEvent{ID: uuid.New(), Message: wrapperspb.Int64(int64(n)), Meta: eventlog.Metadata{OccurredAt: time.Unix(1, 0)}})
		}
		if _, err := w.log.Append(t.Context(), fmt.Sprintf("a-s%d", stream), eventlog.NoStream, numbers); err != nil {
			t.Fatal(err)
		}
		w.await("entries", "", w.log.head())
	}
	if w.log.subscribed.Load() != subscribed {
		t.Error("another one was cut off as well")
	}
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.settled()
	if w.log.subscribed.Load() == subscribed {
		t.Error("it was not cut off")
	}
	w.onlyTheFeed()
	w.check()
	w.audited(0)
}

// During a release both run: one that has a report, and one that does not know it. Whoever has a partition last, the report
// is right in the end.
func TestAReportOfANewerReplicaBesideAnOlderOne(t *testing.T) {
	w := newWorld(t)
	older := []consumer.Model{w.accounts.Model(w.wishes), w.entries.Model()}
	stopAppending := w.busy()
	olds := make([]*consumer.Consumer, 2)
	stops := make([]func() error, 2)
	for i := range olds {
		olds[i], stops[i] = w.run(older...)
	}
	w.shares(2*handOver, olds, 8, 8)
	newer, stopNewer := w.run(w.models()...)
	w.shares(2*handOver, append(olds, newer), 6, 5, 5)
	stop(t, stopNewer) // to the older ones, and back
	w.shares(handOver, olds, 8, 8)
	newer, _ = w.run(w.models()...)
	w.shares(2*handOver, append(olds, newer), 6, 5, 5)
	stop(t, stops[0])
	w.shares(handOver, []*consumer.Consumer{olds[1], newer}, 8, 8)
	second, _ := w.run(w.models()...)
	w.shares(2*handOver, []*consumer.Consumer{olds[1], newer, second}, 6, 5, 5)
	stop(t, stops[1])
	w.shares(handOver, []*consumer.Consumer{newer, second}, 8, 8)
	stopAppending()
	w.settled()
	w.await("brackets", "", w.log.head())
	w.check()
	w.audited(0)
}

func stop(t *testing.T, run func() error) {
	t.Helper()
	if err := run(); err != nil {
		t.Fatal(err)
	}
}

// A list is read in all partitions, and most have no event of their own: they move on with the log all the same.
func TestPartitionsWithoutEventsMoveOn(t *testing.T) {
	w := newWorld(t)
	for range 2 {
		w.run(w.models()...)
	}
	w.log.append("a-k", 1)
	w.settled()
	for i := range 100 {
		last := w.log.append([]string{"a-k", "b-k", "c-k"}[i%3], 1) // nobody reads c
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if err := w.reached(ctx, w.wishes, "", last); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
}

// wire leads to Postgres, and can be cut: then nothing passes any more, and nobody is told. What was sent meanwhile arrives once
// it is mended.
type wire struct {
	config *pgx.ConnConfig
	port   uint16

	at     atomic.Pointer[string] // what it is to be cut by, which does not pass any more
	mu     sync.Mutex
	passes chan struct{} // closed while it is whole
}

func newWire(t *testing.T, config *pgx.ConnConfig) *wire {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &wire{config: config, port: uint16(lis.Addr().(*net.TCPAddr).Port), passes: make(chan struct{})}
	close(l.passes)
	var ends sync.WaitGroup
	t.Cleanup(func() { l.mend(); lis.Close(); ends.Wait() })
	ends.Go(func() {
		for {
			near, err := lis.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", net.JoinHostPort(config.Host, fmt.Sprint(config.Port)))
			if err != nil {
				near.Close()
				continue
			}
			ends.Go(func() { l.carry(far, near) })
			ends.Go(func() { l.carry(near, far) })
		}
	})
	return l
}

func (l *wire) carry(to io.WriteCloser, from io.ReadCloser) {
	defer to.Close()
	defer from.Close()
	for b := make([]byte, 32<<10); ; {
		n, err := from.Read(b)
		if at := l.at.Load(); at != nil && bytes.Contains(b[:n], []byte(*at)) && l.at.CompareAndSwap(at, nil) {
			l.cut()
		}
		l.mu.Lock()
		passes := l.passes
		l.mu.Unlock()
		<-passes
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (l *wire) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passes = make(chan struct{})
}

func (l *wire) cutAt(statement string) { l.at.Store(&statement) }

func (l *wire) cutAtCommit() { l.cutAt("commit\x00") }

func (l *wire) isCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.passes:
		return false
	default:
		return true
	}
}

func (l *wire) mend() {
	if l.isCut() {
		close(l.passes)
	}
}

// pool is connections through the wire.
func (l *wire) pool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig("")
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig = l.config.Copy()
	config.ConnConfig.Host, config.ConnConfig.Port, config.ConnConfig.Fallbacks = "127.0.0.1", l.port, nil
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}
