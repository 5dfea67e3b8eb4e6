package eventfile

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/purserhq/purser/internal/eventlog"
)

const (
	// lanes is how many appends are under way at once.
	lanes = 64
	// laneDepth is how many events wait for each lane.
	laneDepth = 16
	// maxBatch bounds the events of one append, beside eventlog.MaxAppend.
	maxBatch = 500
	// appendTimeout bounds one append, over all its attempts: a store that is away for longer ends the import.
	appendTimeout = time.Minute
)

// Target is the log that events are imported into: an *eventlog.Log.
type Target interface {
	Head(ctx context.Context) (eventlog.Position, error)
	Read(ctx context.Context, stream string, from eventlog.Revision, max int) ([]eventlog.Recorded, error)
	TruncatedBefore(ctx context.Context, stream string) (eventlog.Revision, error)
	AppendRecorded(ctx context.Context, stream string, expected eventlog.Revision, events []eventlog.Recorded) (eventlog.Appended, error)
}

var _ Target = (*eventlog.Log)(nil)

// Imported counts the events of an import.
type Imported struct {
	// Added were appended, Present were there before, Skipped were left out.
	Added, Present, Skipped int64
}

// DivergedError says that a stream of the store is not the one of the file.
type DivergedError struct {
	Stream   string
	Revision eventlog.Revision
	Why      string
}

func (e *DivergedError) Error() string {
	return fmt.Sprintf("stream %s of the store is not the one of the file: at revision %d %s; nothing was written to it from there on", e.Stream, e.Revision, e.Why)
}

// importer hands the events of a file out to lanes by their key, so that events of streams that share a key, as order-7
// and payment-7 do, are appended in the order of the file, while appends of many keys are under way.
type importer struct {
	target                  Target
	head                    eventlog.Position // before the import
	added, present, skipped atomic.Int64
}

// Import appends the events of a file, each at the revision that it has, and returns when all are stored. What the store
// has already is left as it is. It leaves out the streams that checked, from [Check], finds unfit; where it is nil, the
// first unfit event ends the import. Any error ends it; how far each stream came is then open, and to run it again goes on.
func Import(ctx context.Context, target Target, r *Reader, checked *Histories) (Imported, error) {
	head, err := target.Head(ctx)
	if err != nil {
		return Imported{}, err
	}
	i := &importer{target: target, head: head}
	g, ctx := errgroup.WithContext(ctx)
	in := make([]chan eventlog.Recorded, lanes)
	for n := range in {
		in[n] = make(chan eventlog.Recorded, laneDepth)
		g.Go(func() error { return i.work(ctx, in[n]) })
	}
	g.Go(func() error { return i.route(ctx, r, checked, in) })
	err = g.Wait()
	return Imported{Added: i.added.Load(), Present: i.present.Load(), Skipped: i.skipped.Load()}, err
}

// route hands out the events of the file.
func (i *importer) route(ctx context.Context, r *Reader, checked *Histories, in []chan eventlog.Recorded) error {
	defer func() {
		for _, lane := range in {
			close(lane)
		}
	}()
	seen := NewHistories()
	for {
		e, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case checked != nil && !checked.Fits(e.Stream):
			i.skipped.Add(1)
			continue
		}
		if err := seen.Add(e); err != nil {
			return err
		}
		select {
		case in[laneOf(e.Stream)] <- e:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func laneOf(stream string) uint32 {
	_, key, ok := eventlog.SplitStream(stream)
	if !ok {
		key = stream
	}
	h := fnv.New32a()
	_, _ = io.WriteString(h, key) // never fails
	return h.Sum32() % lanes
}

// work appends the events of one lane: together those of one stream that follow each other and have come so far.
func (i *importer) work(ctx context.Context, in <-chan eventlog.Recorded) error {
	var batch []eventlog.Recorded
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := i.append(ctx, batch)
		batch, size = nil, 0
		return err
	}
	for {
		if len(in) == 0 {
			if err := flush(); err != nil {
				return err
			}
		}
		e, ok := <-in
		if !ok {
			return flush()
		}
		more := len(e.Data) + len(e.Metadata) + 2*len(e.Type)
		if len(batch) == maxBatch || size+more > eventlog.MaxAppend || len(batch) > 0 && batch[0].Stream != e.Stream {
			if err := flush(); err != nil {
				return err
			}
		}
		batch, size = append(batch, e), size+more
	}
}

// append stores consecutive events of one stream, or finds that they are stored.
func (i *importer) append(ctx context.Context, batch []eventlog.Recorded) error {
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	stream, first := batch[0].Stream, batch[0].Revision
	if first == 0 {
		if err := i.fromTheStart(ctx, stream); err != nil {
			return err
		}
	}
	a, err := i.target.AppendRecorded(ctx, stream, first-1, batch)
	if conflict := (*eventlog.ConflictError)(nil); !errors.As(err, &conflict) {
		if err == nil {
			i.count(a, len(batch))
		}
		return err
	}
	// A store recognises what it has, but not with more behind it: an import that was interrupted may end within a batch.
	there, err := i.target.Read(ctx, stream, first, len(batch))
	if err != nil {
		return err
	}
	for n, e := range there {
		if want := batch[n]; e.ID != want.ID || e.Revision != want.Revision {
			return &DivergedError{Stream: stream, Revision: want.Revision, Why: "it has another event"}
		}
	}
	i.present.Add(int64(len(there)))
	rest := batch[len(there):]
	if len(rest) == 0 {
		return nil
	}
	a, err = i.target.AppendRecorded(ctx, stream, rest[0].Revision-1, rest)
	if err != nil {
		return err
	}
	i.count(a, len(rest))
	return nil
}

// fromTheStart refuses a stream whose revisions go on where a deleted one ended.
func (i *importer) fromTheStart(ctx context.Context, stream string) error {
	before, err := i.target.TruncatedBefore(ctx, stream)
	if errors.Is(err, eventlog.ErrDeleted) {
		return &DivergedError{Stream: stream, Why: "it was deleted for good"}
	}
	if err == nil && before > 0 {
		return &DivergedError{Stream: stream, Why: "it was deleted or truncated"}
	}
	return err
}

// count takes an append that the store acknowledged: as an old one, if its end lies before where the import began.
func (i *importer) count(a eventlog.Appended, n int) {
	if a.Position <= i.head {
		i.present.Add(int64(n))
		return
	}
	i.added.Add(int64(n))
}
