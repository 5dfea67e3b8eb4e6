package storage

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	queueLength = 1024             // appends that wait for the writer, and that one batch answers
	batchBytes  = 4 << 20          // a batch of this size takes no further append
	maxGather   = time.Millisecond // bounds what that adds to an append's latency
	recentIDs   = 1 << 16          // event ids remembered for repeats of Any and StreamExists
)

// task is something that the writer does: it looks at what is there after all tasks before it, and adds to the batch.
type task interface {
	run(w *writer) (Written, error)
}

type request struct {
	task
	answer chan answer // holds one
}

type answer struct {
	written Written
	err     error
}

// writer decides changes and writes them in batches. Everything in it belongs to its goroutine.
type writer struct {
	view     // of everything: between batches, all that is there is synced
	store    *Store
	onCommit func(Commit)
	recent   *simplelru.LRU[ID, place]

	next   Position // of the next event
	batch  *batch
	record []byte // scratch
	failed error  // of the batch after which the log's end is unknown: nothing is written or confirmed any more
}

// batch is a group of changes that reach the disk together.
type batch struct {
	*pebble.Batch
	heads    map[string]head     // of the streams that it changes
	metadata map[string]metadata // of streams that it describes, or whose changes were decided on it
	index    []entry             // of its events, in the order of the log
	last     Position            // of its last event; 0 if it has none
	events   int
	changes  int
	swept    int  // events that it deletes
	queued   bool // it has added to the scavenger's list
	waiting  []waiting
}

// entry is where an event is in its stream and in the log.
type entry struct {
	stream string
	head
}

// waiting is a request that has been decided and is answered when all that it was decided on is safe.
type waiting struct {
	*request
	answer
}

// place is where a recent event was written.
type place struct {
	stream string
	Written
}

func newWriter(s *Store, last Position, onCommit func(Commit)) *writer {
	recent, err := simplelru.NewLRU[ID, place](recentIDs, nil)
	if err != nil {
		panic(err) // the size is a positive constant
	}
	if onCommit == nil {
		onCommit = func(Commit) {}
	}
	everything := view{Reader: s.db, head: math.MaxUint64, described: &s.described}
	w := &writer{view: everything, store: s, onCommit: onCommit, recent: recent, next: last + 1}
	w.begin()
	return w
}

// run writes until the store is stopped.
func (w *writer) run() {
	for {
		select {
		case <-w.store.stop:
			return
		case r := <-w.store.queue:
			w.take(r)
		}
		w.gather()
		w.commit()
	}
}

// gather takes the appends that are waiting, and those on their way: while it yields, whoever is ready to run gets ahead. So
// on a busy machine many appends share a sync, which costs processor time too, and on an idle one nobody waits.
func (w *writer) gather() {
	w.drain()
	for begun := time.Now(); w.hasRoom() && time.Since(begun) < maxGather; {
		runtime.Gosched()
		if len(w.store.queue) == 0 {
			return
		}
		w.drain()
	}
}

func (w *writer) hasRoom() bool {
	return w.batch.Len() < batchBytes && len(w.batch.waiting) < queueLength
}

// drain takes the requests that are waiting, as far as they fit.
func (w *writer) drain() {
	for w.hasRoom() {
		select {
		case r := <-w.store.queue:
			w.take(r)
		default:
			return
		}
	}
}

// take decides a request and adds what it writes to the batch.
func (w *writer) take(r *request) {
	written, err := r.run(w)
	w.batch.waiting = append(w.batch.waiting, waiting{r, answer{written, err}})
}

// write adds events to the batch, after the given end of the stream, and returns the new end.
func (w *writer) write(stream string, cur head, events []Proposed) head {
	created := w.store.now()
	for i := range events {
		e := &events[i]
		cur = head{revision: cur.revision + 1, position: w.next}
		w.next++
		w.record = appendRecord(w.record[:0], stream, cur.revision, created, e)
		w.batch.set(eventKey(cur.position), w.record)
		w.batch.index = append(w.batch.index, entry{stream, cur})
		w.recent.Add(e.ID, place{stream, cur.written()})
	}
	w.batch.events += len(events)
	w.batch.last = cur.position
	w.batch.heads[stream] = cur
	if described, ok := describedBy(stream); ok {
		w.store.described.Store(true)
		e := &events[len(events)-1]
		w.batch.metadata[described] = parseMetadata(described, cur, e.JSON, e.Data)
		w.queueSweep(described)
		if cur.revision > 0 {
			w.queueSweep(stream)
		}
	}
	return cur
}

func (b *batch) set(key, value []byte) {
	if err := b.Set(key, value, nil); err != nil {
		panic(err) // only an indexed batch or a closed one can fail to grow
	}
}

func (w *writer) begin() {
	w.batch = &batch{Batch: w.store.db.NewBatch(), heads: make(map[string]head), metadata: make(map[string]metadata)}
}

// commit writes and syncs the batch, shows it to readers and then answers its requests.
func (w *writer) commit() {
	b := w.batch
	w.begin()
	c := Commit{Appends: b.changes, Events: b.events, Scavenged: b.swept}
	if b.Count() > 0 && w.failed == nil {
		w.seal(b)
		c.Bytes = b.Len()
		begun := time.Now()
		err := b.Commit(pebble.Sync)
		if err == nil {
			err = w.store.marker.set(w.next - 1)
		}
		if err != nil {
			w.failed = fmt.Errorf("write to the event store: %w", err)
		} else {
			w.show(b)
		}
		c.Sync = time.Since(begun)
	}
	for _, a := range b.waiting {
		if w.failed != nil {
			a.answer = answer{err: w.failed}
		}
		a.request.answer <- a.answer
	}
	w.onCommit(c)
}

// show lets readers see a batch that is safe.
func (w *writer) show(b *batch) {
	if b.events > 0 {
		w.store.synced.Store(uint64(b.last))
		w.store.watch.signal(b.heads)
	}
	if b.queued {
		w.store.scavenger.wake()
	}
}

// seal adds the index and the heads to the batch, in the order of their keys, which costs Pebble least.
func (w *writer) seal(b *batch) {
	slices.SortStableFunc(b.index, func(x, y entry) int { return strings.Compare(x.stream, y.stream) })
	for i, e := range b.index {
		if i+1 == len(b.index) || b.index[i+1].stream != e.stream {
			w.record = e.head.append(w.record[:0])
			b.set(headKey(e.stream), w.record)
		}
	}
	for _, e := range b.index {
		w.record = appendPosition(w.record[:0], e.position)
		b.set(indexKey(e.stream, e.revision), w.record)
	}
}

// head is the last event of a stream after all that has been decided so far.
func (w *writer) head(stream string) (head, error) {
	if h, ok := w.batch.heads[stream]; ok {
		return h, nil
	}
	return w.last(stream)
}

// metadata is what describes a stream after all that has been decided so far.
func (w *writer) metadata(stream string) (metadata, error) {
	if m, ok := w.batch.metadata[stream]; ok {
		return m, nil
	}
	m, err := w.view.metadata(stream)
	if err == nil && m.at != noHead {
		w.batch.metadata[stream] = m
	}
	return m, err
}
