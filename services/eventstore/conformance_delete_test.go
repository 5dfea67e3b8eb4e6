package eventstore_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const tombstoneRevision = math.MaxInt64

func deleteStream(t *testing.T, c *esdb.Client, stream string) {
	t.Helper()
	if _, err := c.DeleteStream(testContext(t), stream, esdb.DeleteStreamOptions{ExpectedRevision: esdb.Any{}}); err != nil {
		t.Fatal(err)
	}
}

func tombstoneStream(t *testing.T, c *esdb.Client, stream string) {
	t.Helper()
	if _, err := c.TombstoneStream(testContext(t), stream, esdb.TombstoneStreamOptions{ExpectedRevision: esdb.Any{}}); err != nil {
		t.Fatal(err)
	}
}

func setMetadata(t *testing.T, c *esdb.Client, stream string, set func(*esdb.StreamMetadata)) {
	t.Helper()
	var meta esdb.StreamMetadata
	set(&meta)
	opts := esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}}
	if _, err := c.SetStreamMetadata(testContext(t), stream, opts, meta); err != nil {
		t.Fatal(err)
	}
}

// What becomes of a stream: its name, and how many events it was given.
var streamStates = map[string]struct {
	events int
	then   func(*testing.T, *esdb.Client, string)
}{
	"missing":      {0, func(*testing.T, *esdb.Client, string) {}},
	"live":         {3, func(*testing.T, *esdb.Client, string) {}},
	"soft-deleted": {3, deleteStream},
	"metadata only": {0, func(t *testing.T, c *esdb.Client, s string) {
		setMetadata(t, c, s, func(m *esdb.StreamMetadata) { m.SetMaxCount(9) })
	}},
	"tombstoned": {3, tombstoneStream},
}

// Every change under every expectation, to a stream in every state.
func TestConformanceChangesByState(t *testing.T) {
	const ok, wrong, deleted = "ok", "wrong version", "deleted"
	type results map[string]string // by state
	c := conformanceClient(t)
	for name, expectation := range map[string]struct {
		esdb.ExpectedRevision
		append, delete, tombstone results
	}{
		"any": {esdb.Any{},
			results{"missing": ok, "live": ok, "soft-deleted": ok, "metadata only": ok},
			results{"missing": wrong, "live": ok, "soft-deleted": ok, "metadata only": ok},
			results{"missing": ok, "live": ok, "soft-deleted": ok, "metadata only": ok}},
		"no stream": {esdb.NoStream{},
			results{"missing": ok, "live": wrong, "soft-deleted": ok, "metadata only": ok},
			results{"missing": wrong, "live": wrong, "soft-deleted": ok, "metadata only": ok},
			results{"missing": ok, "live": wrong, "soft-deleted": ok, "metadata only": ok}},
		"stream exists": {esdb.StreamExists{},
			results{"missing": wrong, "live": ok, "soft-deleted": deleted, "metadata only": ok},
			results{"missing": wrong, "live": ok, "soft-deleted": deleted, "metadata only": ok},
			results{"missing": wrong, "live": ok, "soft-deleted": deleted, "metadata only": ok}},
		"last revision": {esdb.Revision(2),
			results{"missing": wrong, "live": ok, "soft-deleted": ok, "metadata only": wrong},
			results{"missing": wrong, "live": ok, "soft-deleted": ok, "metadata only": wrong},
			results{"missing": wrong, "live": ok, "soft-deleted": ok, "metadata only": wrong}},
		"earlier revision": {esdb.Revision(1),
			results{"missing": wrong, "live": wrong, "soft-deleted": wrong, "metadata only": wrong},
			results{"missing": wrong, "live": wrong, "soft-deleted": wrong, "metadata only": wrong},
			results{"missing": wrong, "live": wrong, "soft-deleted": wrong, "metadata only": wrong}},
		"later revision": {esdb.Revision(3),
			results{"missing": wrong, "live": wrong, "soft-deleted": wrong, "metadata only": wrong},
			results{"missing": wrong, "live": wrong, "soft-deleted": wrong, "metadata only": wrong},
			results{"missing": wrong, "live": wrong, "soft-deleted": wrong, "metadata only": wrong}},
	} {
		for state, made := range streamStates {
			for _, change := range []struct {
				name string
				want results
				do   func(string) (uint64, error) // answers the position
			}{
				{"append", expectation.append, func(s string) (uint64, error) {
					res, err := c.AppendToStream(testContext(t), s, esdb.AppendToStreamOptions{ExpectedRevision: expectation.ExpectedRevision}, happened(1)...)
					if err != nil {
						return 0, err
					}
					if res.NextExpectedVersion != uint64(made.events) {
						t.Errorf("appended at revision %d, want %d", res.NextExpectedVersion, made.events)
					}
					return res.CommitPosition, nil
				}},
				{"delete", expectation.delete, func(s string) (uint64, error) {
					res, err := c.DeleteStream(testContext(t), s, esdb.DeleteStreamOptions{ExpectedRevision: expectation.ExpectedRevision})
					if err != nil {
						return 0, err
					}
					return res.Position.Commit, nil
				}},
				{"tombstone", expectation.tombstone, func(s string) (uint64, error) {
					res, err := c.TombstoneStream(testContext(t), s, esdb.TombstoneStreamOptions{ExpectedRevision: expectation.ExpectedRevision})
					if err != nil {
						return 0, err
					}
					return res.Position.Commit, nil
				}},
			} {
				t.Run(fmt.Sprintf("%s, expecting %s, %s", change.name, name, state), func(t *testing.T) {
					stream := newStream()
					if made.events > 0 {
						appendTo(t, c, stream, esdb.NoStream{}, happened(made.events)...)
					}
					made.then(t, c, stream)
					want := change.want[state]
					if state == "tombstoned" {
						want = deleted
					}
					position, err := change.do(stream)
					if got := changeResult(err); got != want {
						t.Fatalf("got %s (%v), want %s", got, err, want)
					}
					if want == ok && position == 0 {
						t.Error("the answer has no position")
					}
				})
			}
		}
	}
}

// changeResult names the outcome of a change. A deletion's wrong version is an error that the client has no name for.
func changeResult(err error) string {
	var e *esdb.Error
	switch {
	case err == nil:
		return "ok"
	case errorCode(err) == esdb.ErrorCodeStreamDeleted:
		return "deleted"
	case errorCode(err) == esdb.ErrorCodeWrongExpectedVersion,
		errors.As(err, &e) && status.Code(e.Err()) == codes.FailedPrecondition && strings.Contains(e.Error(), "WrongExpectedVersion"):
		return "wrong version"
	}
	return err.Error()
}

func TestConformanceReadsByState(t *testing.T) {
	c := conformanceClient(t)
	for state, want := range map[string]struct {
		stream, metadata esdb.ErrorCode // 0 for none
	}{
		"missing":       {esdb.ErrorCodeResourceNotFound, esdb.ErrorCodeResourceNotFound},
		"live":          {0, esdb.ErrorCodeResourceNotFound},
		"soft-deleted":  {esdb.ErrorCodeResourceNotFound, 0},
		"metadata only": {esdb.ErrorCodeResourceNotFound, 0},
		"tombstoned":    {esdb.ErrorCodeStreamDeleted, esdb.ErrorCodeStreamDeleted},
	} {
		for _, dir := range []esdb.Direction{esdb.Forwards, esdb.Backwards} {
			t.Run(fmt.Sprintf("%s, direction %d", state, dir), func(t *testing.T) {
				stream, made := newStream(), streamStates[state]
				if made.events > 0 {
					appendTo(t, c, stream, esdb.NoStream{}, happened(made.events)...)
				}
				made.then(t, c, stream)
				for name, want := range map[string]esdb.ErrorCode{stream: want.stream, "$$" + stream: want.metadata} {
					opts := esdb.ReadStreamOptions{Direction: dir, From: esdb.Start{}}
					if dir == esdb.Backwards {
						opts.From = esdb.End{}
					}
					r, err := c.ReadStream(testContext(t), name, opts, 10)
					if err != nil {
						t.Fatal(err)
					}
					_, err = r.Recv()
					r.Close()
					if want != 0 {
						wantCode(t, err, want)
					} else if err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}

func TestConformanceUndelete(t *testing.T) {
	c, stream := conformanceClient(t), newStream()
	first := happened(3)
	appendTo(t, c, stream, esdb.NoStream{}, first...)
	deleteStream(t, c, stream)
	deleteStream(t, c, stream) // again is no mistake
	if res := appendTo(t, c, stream, esdb.NoStream{}, happened(2)...); res.NextExpectedVersion != 4 {
		t.Fatalf("appended to revision %d, want 4", res.NextExpectedVersion)
	}
	wantRevisions(t, readStream(t, c, stream, esdb.ReadStreamOptions{From: esdb.Start{}}, 10), 3, 4)
	wantRevisions(t, readStream(t, c, stream, esdb.ReadStreamOptions{Direction: esdb.Backwards, From: esdb.End{}}, 10), 4, 3)
	wantMetadata(t, c, stream, `{"$tb":3}`)
	if res := appendTo(t, c, stream, esdb.Revision(4), happened(1)...); res.NextExpectedVersion != 5 {
		t.Fatalf("appended to revision %d, want 5", res.NextExpectedVersion)
	}
}

// Describing a deleted stream undeletes it, empty.
func TestConformanceUndeleteByMetadata(t *testing.T) {
	c, stream := conformanceClient(t), newStream()
	appendTo(t, c, stream, esdb.NoStream{}, happened(3)...)
	deleteStream(t, c, stream)
	setMetadata(t, c, stream, func(m *esdb.StreamMetadata) { m.SetMaxCount(4) })
	wantRevisions(t, readStream(t, c, stream, esdb.ReadStreamOptions{From: esdb.Start{}}, 10))
	wantMetadata(t, c, stream, `{"$maxCount":4,"$tb":3}`)
	wantRevisions(t, readStream(t, c, "$$"+stream, esdb.ReadStreamOptions{From: esdb.Start{}}, 10), 2)
	appendTo(t, c, stream, esdb.Revision(2), happened(1)...)
	wantRevisions(t, readStream(t, c, stream, esdb.ReadStreamOptions{From: esdb.Start{}}, 10), 3)
}

// wantMetadata compares what describes a stream by its meaning.
func wantMetadata(t *testing.T, c *esdb.Client, stream, want string) {
	t.Helper()
	e := readStream(t, c, "$$"+stream, esdb.ReadStreamOptions{From: esdb.Start{}}, 10)
	if len(e) != 1 || e[0].Event.EventType != "$metadata" || e[0].Event.ContentType != "application/json" {
		t.Fatalf("got %+v", e)
	}
	var got bytes.Buffer
	if err := json.Compact(&got, e[0].Event.Data); err != nil || got.String() != want {
		t.Errorf("got metadata %s (%v), want %s", got.String(), err, want)
	}
}

func TestConformanceSubscriptionOverDelete(t *testing.T) {
	c, stream := conformanceClient(t), newStream()
	appendTo(t, c, stream, esdb.NoStream{}, happened(2)...)
	live := subscribeStream(t, c, stream, esdb.Start{})
	wantRevisions(t, live.history(), 0, 1)
	deleteStream(t, c, stream)
	late := subscribeStream(t, c, stream, esdb.Start{})
	wantRevisions(t, late.history())
	appendTo(t, c, stream, esdb.Any{}, happened(1)...)
	for name, s := range map[string]*subscriber{"live": live, "late": late} {
		if e := s.event(); e.EventNumber != 2 || e.EventType != "Happened" {
			t.Errorf("%s: got %s@%d, want what was appended after the deletion", name, e.EventType, e.EventNumber)
		}
	}
}

func TestConformanceSubscriptionOverTombstone(t *testing.T) {
	c, cat := conformanceClient(t), category()
	stream := cat + "-1"
	appendTo(t, c, stream, esdb.NoStream{}, happened(2)...)
	s := subscribeStream(t, c, stream, esdb.Start{})
	wantRevisions(t, s.history(), 0, 1)
	all := subscribeAll(t, c, esdb.SubscribeToAllOptions{From: esdb.Start{}, Filter: prefix(cat)})
	wantRevisions(t, all.history(), 0, 1)
	tombstoneStream(t, c, stream)
	for _, e := range []*esdb.RecordedEvent{s.event(), all.event()} {
		if e.EventNumber != tombstoneRevision || e.EventType != "$streamDeleted" || e.StreamID != stream {
			t.Errorf("got %s %s@%d, want the tombstone", e.EventType, e.StreamID, e.EventNumber)
		}
	}
	dropped := s.sub.Recv().SubscriptionDropped
	if dropped == nil || status.Code(dropped.Error) != codes.FailedPrecondition {
		t.Errorf("got %+v, want a drop", dropped)
	}
	_, err := c.SubscribeToStream(testContext(t), stream, esdb.SubscribeToStreamOptions{From: esdb.Start{}})
	wantCode(t, err, esdb.ErrorCodeStreamDeleted)
	appendTo(t, c, cat+"-2", esdb.NoStream{}, happened(1)...)
	if e := all.event(); e.StreamID != cat+"-2" {
		t.Errorf("got %s, want $all to go on", e.StreamID)
	}
}
