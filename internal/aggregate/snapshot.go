package aggregate

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"reflect"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/secret"
)

// Long is how a handler deals with streams that never end: a command takes no longer on one of a million events than on a
// new one.
//
// Such a stream has a snapshot, the last event of the stream "snapshot_<stream>": the folded state as packed JSON, so its
// fields are exported. A snapshot is only ever a baseline, like a state in memory. It says which schema it has, a hash of the state's
// type and of Version; one of another schema is ignored, and the stream folded from its start.
//
// Requests are remembered for Window, by the events' own time, and at most so many of them. A command sent again after that
// is decided again, and there the entity's own keys decide, such as one reservation per order. So requests whose events
// all have such a key (Keyed) are counted apart: they can't drive out the others.
type Long struct {
	Version       int // to be raised when events come to be folded otherwise into a state of the same type
	SnapshotEvery int // events; at least 1
	Window        time.Duration
	Requests      int // without a key; like the next, more than are settled together
	KeyedRequests int
	Keyed         func(proto.Message) bool
	Log           *slog.Logger
}

func (l *Long) keyed(messages []proto.Message) bool {
	for _, m := range messages {
		if !l.Keyed(m) {
			return false
		}
	}
	return true
}

// NewLong returns a handler for the streams of a category that never end.
func NewLong[S any, P Evolver[S]](log Log, category string, s *secret.Secret, clock func() time.Time, long Long) *Handler[S] {
	h := newHandler[S, P](log, category, s, clock, cachedLongStates)
	h.long = &long
	h.schema = schemaOf(reflect.TypeFor[snapshot[S]](), long.Version)
	return h
}

const (
	snapshotType     = "Snapshot"
	snapshotPrefix   = "snapshot_"
	snapshotMetadata = `{"$maxCount":1}`
	// maxSnapshot keeps an append within what every event store takes.
	maxSnapshot = 900 << 10
	// eventsWorth is how many bytes of a snapshot's JSON take about as long as one event, so that snapshots of a large state, which
	// are rarer, cost little.
	eventsWorth = 100
	// snapshotTimeout bounds how long the writing of one keeps commands waiting.
	snapshotTimeout = 3 * time.Second
	// noSnapshot is the revision of a snapshot that must not be used.
	noSnapshot eventlog.Revision = -2
)

// snapshot is what a stream's events up to a revision add up to, as it is stored.
type snapshot[S any] struct {
	Schema   string
	State    *S
	Revision eventlog.Revision
	Last     uuid.UUID
	Requests []*request
}

// schemaOf hashes how values of a type look as JSON.
func schemaOf(t reflect.Type, version int) string {
	hash := fnv.New128a()
	fmt.Fprintf(hash, "%d", version)
	describe(hash.Write, t, map[reflect.Type]bool{})
	return hex.EncodeToString(hash.Sum(nil))
}

func describe(write func([]byte) (int, error), t reflect.Type, seen map[reflect.Type]bool) {
	_, _ = write([]byte(t.String() + ":" + t.Kind().String() + ";")) // a hash takes everything
	if seen[t] {
		return
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Map:
		describe(write, t.Key(), seen)
		describe(write, t.Elem(), seen)
	case reflect.Pointer, reflect.Slice, reflect.Array:
		describe(write, t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			_, _ = write([]byte(t.Field(i).Name + string(t.Field(i).Tag)))
			describe(write, t.Field(i).Type, seen)
		}
	}
}

// restore begins with the snapshot of a stream, if there is one that can be read.
func (h *Handler[S]) restore(ctx context.Context, e *entity[S]) error {
	if h.long == nil || e.snapshot == noSnapshot {
		return nil
	}
	latest, exists, err := h.log.Latest(ctx, snapshotPrefix+e.stream)
	if err != nil || !exists {
		return err
	}
	s, ok := h.readable(latest)
	if !ok {
		return nil
	}
	e.state, e.revision, e.last, e.snapshot = s.State, s.Revision, s.Last, s.Revision
	for _, r := range s.Requests {
		e.requests.add(r)
	}
	return nil
}

func (h *Handler[S]) readable(r eventlog.Recorded) (s snapshot[S], ok bool) {
	packed, err := gzip.NewReader(bytes.NewReader(r.Data))
	if err == nil {
		err = json.NewDecoder(packed).Decode(&s)
	}
	return s, err == nil && s.Schema == h.schema && s.State != nil
}

// pack is JSON made small: most of it are ids and times.
func pack(data []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(data)
	err = errors.Join(err, w.Close())
	return b.Bytes(), err
}

// isDue tells whether it is time for a snapshot.
func (h *Handler[S]) isDue(e *entity[S]) bool {
	return h.long != nil &&
		e.revision-max(e.snapshot, eventlog.NoStream) >= eventlog.Revision(max(h.long.SnapshotEvery, e.size/eventsWorth))
}

// keep writes a snapshot when it is time to. That it can't is no command's failure: there will be another.
func (h *Handler[S]) keep(e *entity[S]) {
	if !h.isDue(e) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), snapshotTimeout)
	defer cancel()
	err := h.write(ctx, e)
	e.snapshot = e.revision // also where it failed: not to try at every command
	conflict := (*eventlog.ConflictError)(nil)
	if err != nil && !errors.As(err, &conflict) { // another replica has just written one
		h.long.Log.Warn("can't write a snapshot", "stream", e.stream, "error", err)
	}
}

func (h *Handler[S]) write(ctx context.Context, e *entity[S]) error {
	data, err := json.Marshal(snapshot[S]{
		Schema: h.schema, State: e.state, Revision: e.revision, Last: e.last, Requests: e.requests.all(),
	})
	if err != nil {
		return err
	}
	e.size = len(data)
	if data, err = pack(data); err != nil {
		return err
	}
	if len(data) > maxSnapshot {
		return fmt.Errorf("it has %d bytes, more than %d", len(data), maxSnapshot)
	}
	stream := snapshotPrefix + e.stream
	latest, exists, err := h.log.Latest(ctx, stream)
	if err != nil {
		return err
	}
	at := eventlog.NoStream
	if exists {
		at = latest.Revision
	} else if err := h.describe(ctx, stream); err != nil {
		return err
	}
	_, err = h.log.AppendRecorded(ctx, stream, at, []eventlog.Recorded{{ID: uuid.New(), Type: snapshotType, ContentType: "application/octet-stream", Data: data}})
	return err
}

// describe has the store keep only the last snapshot of a stream.
func (h *Handler[S]) describe(ctx context.Context, stream string) error {
	_, err := h.log.AppendRecorded(ctx, "$$"+stream, eventlog.NoStream, []eventlog.Recorded{{
		ID: uuid.New(), Type: "$metadata", ContentType: "application/json", Data: []byte(snapshotMetadata),
	}})
	if conflict := (*eventlog.ConflictError)(nil); errors.As(err, &conflict) {
		return nil // it has been described
	}
	return err
}

// Subscriber is an event log that delivers.
type Subscriber interface {
	Subscribe(ctx context.Context, categories []string, after eventlog.Position, deliver func(context.Context, eventlog.Delivery) error) error
}

// Renew writes anew all snapshots that this build can't read, so that no command has to wait while a long stream is folded
// from its start. It goes on over outages, and returns an error only when ctx ends.
func (h *Handler[S]) Renew(ctx context.Context, log Subscriber) error {
	stale := map[string]bool{} // by id
	caughtUp := errors.New("caught up")
	err := log.Subscribe(ctx, []string{snapshotPrefix + h.category}, 0, func(_ context.Context, d eventlog.Delivery) error {
		switch {
		case d.CaughtUp:
			return caughtUp
		case d.Event != nil:
			_, id, _ := eventlog.SplitStream(d.Event.Stream)
			_, ok := h.readable(*d.Event)
			stale[id] = !ok
		}
		return nil
	})
	if !errors.Is(err, caughtUp) {
		return err
	}
	for id, is := range stale {
		if !is {
			continue
		}
		e := h.newEntity(id)
		switch err := h.catchUp(ctx, e); {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil: // so will its commands
			h.long.Log.Error("can't fold a stream anew for its snapshot", "stream", e.stream, "error", err)
		default:
			h.keep(e)
		}
	}
	return nil
}
