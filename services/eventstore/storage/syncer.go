package storage

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// syncer waits for batches to reach the disk, in order, then shows them to readers and answers their appends.
type syncer struct {
	store    *Store
	onCommit func(Commit)
	batches  chan *batch
	done     chan struct{}
	failed   error // of the batch after which the log's end is unknown
}

func newSyncer(s *Store, onCommit func(Commit)) *syncer {
	if onCommit == nil {
		onCommit = func(Commit) {}
	}
	y := &syncer{store: s, onCommit: onCommit, batches: make(chan *batch, unsynced), done: make(chan struct{})}
	go func() {
		defer close(y.done)
		for b := range y.batches {
			y.finish(b)
		}
	}()
	return y
}

// sync begins to sync a batch. It waits if too many are on their way.
func (y *syncer) sync(b *batch) {
	if b.events > 0 {
		if err := y.store.db.ApplyNoSyncWait(b.Batch, pebble.Sync); err != nil {
			b.failed = err
		}
	}
	y.batches <- b
}

func (y *syncer) finish(b *batch) {
	y.failed = firstError(y.failed, y.wait(b))
	c := Commit{Appends: len(b.waiting)}
	if b.events > 0 && y.failed == nil {
		c.Events, c.Bytes, c.Sync = b.events, b.bytes, time.Since(b.begun)
		y.store.synced.Store(uint64(b.last))
		y.store.watch.signal(b.heads)
	}
	for _, a := range b.waiting {
		if y.failed != nil {
			a.answer = answer{err: y.failed}
		}
		a.request.answer <- a.answer
	}
	y.onCommit(c)
	if b.settled != nil {
		close(b.settled)
	}
}

// wait waits until the disk has the batch.
func (y *syncer) wait(b *batch) error {
	err := b.failed
	if err == nil && b.events > 0 {
		err = b.SyncWait()
	}
	if err = firstError(err, b.Close()); err != nil {
		return fmt.Errorf("write to the event store: %w", err)
	}
	return nil
}

// close waits until every batch has been answered.
func (y *syncer) close() {
	close(y.batches)
	<-y.done
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
