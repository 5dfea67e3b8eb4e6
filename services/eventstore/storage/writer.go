package storage

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	queueLength = 1024    // appends that wait for the writer, and that one batch answers
	gathered    = 48      // requests for which the writer yields; more would leave the disk idle
	batchBytes  = 4 << 20 // a batch of this size takes no further append
	recentIDs   = 1 << 16 // event ids remembered for repeats of Any and StreamExists
	recentHeads = 1 << 14 // heads remembered, more than the requests of two batches ask for
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

// writer decides changes and gathers them in batches. While the committer writes one, which takes a sync, the writer fills
// the next, so that deciding and waiting for the disk overlap. Everything in it belongs to its goroutine.
type writer struct {
	view      // of everything that the committer has finished with
	store     *Store
	committer *committer
	recent    *simplelru.LRU[ID, place]
	heads     *simplelru.LRU[string, head] // after all that has been decided, committed or not

	stored  *pebble.Iterator // over the heads on disk, while the batch needs some; what has changed since is in heads
	next    Position         // of the next event
	batch   *batch           // being filled
	pending *batch           // the one that the committer has, or had last
	record  []byte           // scratch
}

// batch is a group of changes that reach the disk together.
type batch struct {
	*pebble.Batch
	metadata map[string]metadata // of streams that it describes, or whose changes were decided on it
	index    []entry             // of its events, in the order of the log
	last     Position            // of its last event; 0 if it has none
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
	everything := view{Reader: s.db, head: math.MaxUint64, described: &s.described}
	w := &writer{
		view:      everything,
		store:     s,
		committer: newCommitter(s, onCommit),
		recent:    newLRU[ID, place](recentIDs),
		heads:     newLRU[string, head](recentHeads),
		next:      last + 1,
		batch:     &batch{}, // which was empty
	}
	w.begin()
	return w
}

func newLRU[K comparable, V any](size int) *simplelru.LRU[K, V] {
	lru, err := simplelru.NewLRU[K, V](size, nil)
	if err != nil {
		panic(err) // the size is a positive constant
	}
	return lru
}

// run writes until the store is stopped. Whatever it has taken by then is committed.
func (w *writer) run() {
	var committing sync.WaitGroup
	committing.Go(w.committer.run)
	defer committing.Wait()
	defer close(w.committer.batches)
	for {
		requests, batches := w.store.queue, w.committer.batches
		switch {
		case len(w.batch.waiting) == 0:
			batches = nil
		case !w.hasRoom():
			requests = nil
		}
		select {
		case r := <-requests:
			w.take(r)
			w.gather()
		case batches <- w.batch:
			w.begin()
		case <-w.store.stop:
			w.flush()
			return
		}
	}
}

// gather takes the requests that are waiting and, up to a bound, those on their way: while it yields, whoever is ready to
// run gets ahead. So on a busy machine many share a sync, which costs processor time too, and on an idle one nobody waits.
func (w *writer) gather() {
	w.drain()
	for w.hasRoom() && len(w.batch.waiting) < gathered {
		runtime.Gosched()
		if len(w.store.queue) == 0 {
			return
		}
		w.drain()
	}
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

func (w *writer) hasRoom() bool {
	return w.batch.Len() < batchBytes && len(w.batch.waiting) < queueLength
}

// take decides a request and adds what it writes to the batch.
func (w *writer) take(r *request) {
	written, err := r.run(w)
	w.batch.waiting = append(w.batch.waiting, waiting{r, answer{written, err}})
}

// begin begins a batch, after the last one has been handed over.
func (w *writer) begin() {
	w.pending = w.batch
	w.endLookup()
	w.batch = &batch{Batch: w.store.db.NewBatch(), metadata: make(map[string]metadata)}
}

// flush waits until all that has been decided is committed.
func (w *writer) flush() {
	w.committer.batches <- w.batch
	w.begin()
	w.committer.batches <- &batch{} // it is taken only after the one before
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
	w.batch.last = cur.position
	w.heads.Add(stream, cur)
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

// head is the last event of a stream after all that has been decided so far.
func (w *writer) head(stream string) (head, error) {
	if h, ok := w.heads.Get(stream); ok {
		return h, nil
	}
	h, err := w.lookUp(stream)
	if err == nil {
		w.heads.Add(stream, h)
	}
	return h, err
}

// lookUp finds a head on disk. Most that are looked for aren't there, being those of new streams or of what would describe
// them, and unlike Get an iterator asks the filters of all tables about that.
func (w *writer) lookUp(stream string) (head, error) {
	if w.stored == nil {
		var err error
		if w.stored, err = w.store.db.NewIter(&pebble.IterOptions{UseL6Filters: true}); err != nil {
			return noHead, fmt.Errorf("look up the stream %s: %w", stream, err)
		}
	}
	h := noHead
	var err error
	if w.stored.SeekPrefixGE(headKey(stream)) {
		h, err = parseHead(w.stored.Value())
	}
	if err = errors.Join(err, w.stored.Error()); err != nil {
		w.endLookup()
		return noHead, fmt.Errorf("last event of stream %s: %w", stream, readError(err))
	}
	return h, nil
}

func (w *writer) endLookup() {
	if w.stored != nil {
		_ = w.stored.Close() // what was wrong with it has been answered
		w.stored = nil
	}
}

// metadata is what describes a stream after all that has been decided so far.
func (w *writer) metadata(stream string) (metadata, error) {
	for _, b := range []*batch{w.batch, w.pending} {
		if m, ok := b.metadata[stream]; ok {
			return m, nil
		}
	}
	if !w.described.Load() {
		return parseMetadata(stream, noHead, false, nil), nil
	}
	at, err := w.head(metaPrefix + stream)
	if err != nil {
		return metadata{}, err
	}
	m, err := w.metadataAt(stream, at)
	if err == nil && m.at != noHead {
		w.batch.metadata[stream] = m
	}
	return m, err
}
