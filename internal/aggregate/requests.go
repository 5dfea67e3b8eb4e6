package aggregate

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/eventlog"
)

// request is a command that the stream remembers.
type request struct {
	ID        string
	Hash      string
	Revisions []eventlog.Revision // of its events, ascending
	At        time.Time           // when the first of them occurred
	Keyed     bool                `json:",omitempty"`
}

// requests are the commands that a stream remembers: all of them, or, of a long stream, those of a window of the events'
// own time and at most so many of either kind.
type requests struct {
	long *Long // nil: for ever
	byID map[string]*request
	// The same, in the order of the log: only of a long stream.
	keyed, plain []*request
}

func newRequests(long *Long) requests { return requests{long: long, byID: map[string]*request{}} }

// remember notes that a request recorded an event at a revision.
func (rs *requests) remember(id, hash string, at eventlog.Revision, messages []proto.Message, occurred time.Time) {
	if id == "" {
		return // not written by a command: an import, say
	}
	if r := rs.byID[id]; r != nil {
		r.Revisions = append(r.Revisions, at)
		return
	}
	r := &request{ID: id, Hash: hash, Revisions: []eventlog.Revision{at}, At: occurred}
	if rs.long != nil {
		r.Keyed = rs.long.keyed(messages)
	}
	rs.add(r)
}

func (rs *requests) add(r *request) {
	rs.byID[r.ID] = r
	switch {
	case rs.long == nil:
	case r.Keyed:
		rs.keyed = rs.bound(append(rs.keyed, r), rs.long.KeyedRequests)
	default:
		rs.plain = rs.bound(append(rs.plain, r), rs.long.Requests)
	}
}

// bound forgets the first ones, as far as they are too many or too old beside the last.
func (rs *requests) bound(in []*request, most int) []*request {
	oldest := in[len(in)-1].At.Add(-rs.long.Window)
	for len(in) > most || len(in) > 0 && in[0].At.Before(oldest) {
		delete(rs.byID, in[0].ID)
		in = in[1:]
	}
	return in
}

// all returns the requests that a long stream remembers.
func (rs *requests) all() []*request {
	return append(append(make([]*request, 0, len(rs.plain)+len(rs.keyed)), rs.plain...), rs.keyed...)
}
