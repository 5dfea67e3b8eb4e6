package aggregate_test

import (
	"errors"
	"fmt"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/eventlog"
	inventoryevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// serial is the log read as what it claims to be: commands that were carried out one after the other.
type serial struct {
	totals []int64 // by revision plus one: the first is before anything happened
	made   map[string]*made
}

// made is what one request recorded.
type made struct {
	first, last eventlog.Revision
	hash        string
	messages    []proto.Message
}

// serial reads the log, or says why it can't be one of commands that were carried out one after the other.
func (w *world) serial() (*serial, error) {
	m := &serial{totals: []int64{0}, made: map[string]*made{}}
	ids := map[uuid.UUID]bool{}
	for i, r := range w.stream() {
		e, err := w.Decode(r)
		switch {
		case err != nil:
			return nil, err
		case r.Revision != eventlog.Revision(i):
			return nil, fmt.Errorf("revision %d at place %d", r.Revision, i)
		case ids[r.ID]:
			return nil, fmt.Errorf("a second event %s at revision %d", r.ID, i)
		}
		ids[r.ID] = true
		total := m.totals[i] + e.Messages[0].(*inventoryevent.StockReceived).GetQuantity()
		if total > limit {
			return nil, fmt.Errorf("%d at revision %d", total, i)
		}
		m.totals = append(m.totals, total)
		if e.Meta.RequestID == "" {
			continue
		}
		of := m.made[e.Meta.RequestID]
		switch {
		case of == nil:
			of = &made{first: r.Revision, hash: e.Meta.RequestHash}
			m.made[e.Meta.RequestID] = of
		case of.last != r.Revision-1 || of.hash != e.Meta.RequestHash:
			return nil, fmt.Errorf("another effect of request %s at revision %d, the first up to %d", e.Meta.RequestID, i, of.last)
		}
		of.last, of.messages = r.Revision, append(of.messages, e.Messages...)
	}
	return m, nil
}

// sometime tells whether something was true of a revision that the stream had between call and answer.
func (m *serial) sometime(r reply, is func(eventlog.Revision, *tally) bool) bool {
	for at := r.from; at <= r.to; at++ {
		if is(at, &tally{Total: m.totals[at+1]}) {
			return true
		}
	}
	return false
}

// explains returns why a reply can't be that of the command, carried out at one moment between call and answer.
func (m *serial) explains(r reply) error {
	of := m.made[fmt.Sprint("r", r.request)]
	switch reason(r.err) {
	case typev1.ErrorReason_ERROR_REASON_UNSPECIFIED:
		if len(r.done.Messages) == 0 {
			return m.explainsNothing(r, of)
		}
		return m.explainsEffect(r, of)
	case typev1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED:
		if of == nil || of.first > r.to {
			return errors.New("nothing had been recorded under its id")
		}
	case typev1.ErrorReason_ERROR_REASON_ETAG_MISMATCH:
		if !m.sometime(r, func(at eventlog.Revision, _ *tally) bool { return !of.by(at) && at != eventlog.Revision(r.etag) }) {
			return errors.New("the etag matched, or it had been carried out, all the time")
		}
	case typev1.ErrorReason_ERROR_REASON_STOCK_LIMIT:
		if !m.sometime(r, func(at eventlog.Revision, s *tally) bool {
			_, err := r.decide(s)
			return !of.by(at) && err != nil
		}) {
			return errors.New("it was within the limit, or it had been carried out, all the time")
		}
	default:
		return errors.New("no definite answer")
	}
	return nil
}

// by tells whether a request had been carried out at a revision.
func (of *made) by(at eventlog.Revision) bool { return of != nil && of.first <= at }

func (m *serial) explainsEffect(r reply, of *made) error {
	switch {
	case of == nil || of.last > r.to:
		return errors.New("it has no effect")
	case r.done.Revision != of.last || r.done.Etag() != aggregate.Etag(of.last) || len(r.done.Messages) != len(of.messages):
		return fmt.Errorf("recorded was %v up to %d", of.messages, of.last)
	case !r.done.Repeat && of.first <= r.from:
		return errors.New("it had been carried out before the call, and is said to be new")
	case r.etag >= 0 && !r.done.Repeat && of.first != eventlog.Revision(r.etag)+1:
		return fmt.Errorf("it was carried out at %d", of.first)
	}
	for i := range of.messages {
		if !proto.Equal(r.done.Messages[i], of.messages[i]) {
			return fmt.Errorf("recorded was %v", of.messages)
		}
	}
	if decided, err := r.decide(&tally{Total: m.totals[of.first]}); err != nil || len(decided) != len(of.messages) || !proto.Equal(decided[0], of.messages[0]) {
		return fmt.Errorf("at %d it would have been decided otherwise: %v, %v", of.first, decided, err)
	}
	return nil
}

func (m *serial) explainsNothing(r reply, of *made) error {
	at := r.done.Revision
	switch {
	case r.kind != topUp || at < r.from || at > r.to || m.totals[at+1] < r.n:
		return errors.New("its effect was not there")
	case of.by(at):
		return errors.New("it had an effect of its own")
	case r.etag >= 0 && at != eventlog.Revision(r.etag):
		return errors.New("its etag did not match")
	}
	return nil
}
