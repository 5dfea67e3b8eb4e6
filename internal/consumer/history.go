package consumer

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/jackc/pgx/v5"

	"github.com/purserhq/purser/internal/eventlog"
)

// historyPage bounds the events of a stream that are in memory at once.
const historyPage = 1000

// errTooLong is that a key has more events than may be read.
var errTooLong = errors.New("its history is too long")

// history reads the events of a key from the first one on, in the order of the log.
type history struct {
	log     History
	key     string
	streams []*unread
	read    int
	most    int // events that may be read; 0: any number
}

// unread is what comes next of a stream.
type unread struct {
	name  string
	page  []eventlog.Recorded
	next  eventlog.Revision // after the page
	ended bool              // for now
}

func newHistory(log History, categories []string, key string) *history {
	h := &history{log: log, key: key}
	for _, category := range categories {
		h.streams = append(h.streams, &unread{name: eventlog.StreamName(category, key)})
	}
	return h
}

// upTo are the next events up to a position. Where one of the streams was deleted for good, what they add up to can't be told any
// more.
func (h *history) upTo(ctx context.Context, position eventlog.Position) iter.Seq2[decoded, error] {
	return func(yield func(decoded, error) bool) {
		for _, s := range h.streams {
			s.ended = false
		}
		for {
			s, err := h.first(ctx)
			if err != nil {
				yield(decoded{}, err)
				return
			}
			if s == nil || s.page[0].Position > position {
				return
			}
			if h.read++; h.most > 0 && h.read > h.most {
				yield(decoded{}, fmt.Errorf("%w: more than %d events", errTooLong, h.most))
				return
			}
			r := s.page[0]
			s.page = s.page[1:]
			if d, _, err := decode(h.log, r); !yield(d, err) {
				return
			}
		}
	}
}

// first is the stream that has the next event.
func (h *history) first(ctx context.Context) (first *unread, err error) {
	for _, s := range h.streams {
		if err := s.fill(ctx, h.log); err != nil {
			return nil, err
		}
		if len(s.page) > 0 && (first == nil || s.page[0].Position < first.page[0].Position) {
			first = s
		}
	}
	return first, nil
}

func (s *unread) fill(ctx context.Context, log History) error {
	if len(s.page) > 0 || s.ended {
		return nil
	}
	page, err := log.Read(ctx, s.name, s.next, historyPage)
	if errors.Is(err, eventlog.ErrDeleted) {
		return fmt.Errorf("%w: %s: %w", errPoison, s.name, err)
	}
	if err != nil {
		return err
	}
	s.page, s.ended = page, len(page) < historyPage
	if len(page) > 0 {
		s.next = page[len(page)-1].Revision + 1
	}
	return nil
}

// awake is the log as it is read within a transaction, which is not idle while one reads.
type awake struct {
	History
	tx pgx.Tx
}

func (a awake) Read(ctx context.Context, stream string, from eventlog.Revision, most int) ([]eventlog.Recorded, error) {
	if err := a.tx.Conn().Ping(ctx); err != nil {
		return nil, err
	}
	return a.History.Read(ctx, stream, from, most)
}
