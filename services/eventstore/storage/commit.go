package storage

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// committer puts batches on the disk, one after the other. Everything in it belongs to its goroutine.
type committer struct {
	store    *Store
	onCommit func(Commit)
	batches  chan *batch // has no room: a batch is taken when the one before it is finished with

	record []byte // scratch
	failed error  // of the batch after which the log's end is unknown: nothing is written or confirmed any more
}

func newCommitter(s *Store, onCommit func(Commit)) *committer {
	if onCommit == nil {
		onCommit = func(Commit) {}
	}
	return &committer{store: s, onCommit: onCommit, batches: make(chan *batch)}
}

func (c *committer) run() {
	for b := range c.batches {
		c.commit(b)
	}
}

// commit writes and syncs a batch, shows it to readers and then answers its requests.
func (c *committer) commit(b *batch) {
	if len(b.waiting) == 0 {
		return // nothing is in it
	}
	done := Commit{Appends: b.changes, Events: len(b.index), Scavenged: b.swept}
	if b.Count() > 0 && c.failed == nil {
		c.seal(b)
		done.Bytes = b.Len()
		begun := time.Now()
		if err := c.write(b); err != nil {
			c.failed = fmt.Errorf("write to the event store: %w", err)
		} else {
			c.show(b)
		}
		done.Sync = time.Since(begun)
	}
	for _, a := range b.waiting {
		if c.failed != nil {
			a.answer = answer{err: c.failed}
		}
		a.request.answer <- a.answer
	}
	c.onCommit(done)
	if c.failed == nil { // or Pebble may still have a use for it
		_ = b.Close() // which only keeps its memory for another, and never fails
	}
}

func (c *committer) write(b *batch) error {
	if err := b.Commit(pebble.Sync); err != nil {
		return err
	}
	if len(b.index) == 0 {
		return nil
	}
	return c.store.marker.set(b.last)
}

// show lets readers see a batch that is safe.
func (c *committer) show(b *batch) {
	if len(b.index) > 0 {
		c.store.synced.Store(uint64(b.last))
		c.store.watch.signal(b.index)
	}
	if b.queued {
		c.store.scavenger.wake()
	}
}

// seal adds the index and the heads to the batch, in the order of their keys, which costs Pebble least.
func (c *committer) seal(b *batch) {
	slices.SortStableFunc(b.index, func(x, y entry) int { return strings.Compare(x.stream, y.stream) })
	for i, e := range b.index {
		if i+1 == len(b.index) || b.index[i+1].stream != e.stream {
			c.record = e.head.append(c.record[:0])
			b.set(headKey(e.stream), c.record)
		}
	}
	for _, e := range b.index {
		c.record = appendPosition(c.record[:0], e.position)
		b.set(indexKey(e.stream, e.revision), c.record)
	}
}

func (b *batch) set(key, value []byte) {
	if err := b.Set(key, value, nil); err != nil {
		panic(err) // only an indexed batch or a closed one can fail to grow
	}
}

func (b *batch) delete(key []byte) {
	if err := b.Delete(key, nil); err != nil {
		panic(err) // only an indexed batch or a closed one can fail to grow
	}
}
