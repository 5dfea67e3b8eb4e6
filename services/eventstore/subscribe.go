package eventstore

import (
	"errors"
	"math"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"

	"github.com/purserhq/purser/services/eventstore/storage"
)

// fallenBehind is how many events a live subscription may find waiting, at once, before it counts as catching up again.
const fallenBehind = 1024

// subscription is a walk that waits at the end.
type subscription struct {
	*cursor
	ss streams.Streams_ReadServer

	live       bool
	backlog    int    // events walked over since it last was at the end
	considered int    // events walked over since the last checkpoint
	checkpoint uint64 // position of the last checkpoint
}

func (s *service) subscribe(q query, ss streams.Streams_ReadServer) error {
	// Watching starts before the first read, so what is written after it is not missed.
	watcher := s.store.Watch(q.stream)
	defer watcher.Close()
	c, err := subscriptionCursor(s.store, q)
	if err != nil {
		return storageStatus(ss.Context(), err)
	}
	s.metrics.subscriptions.Inc()
	defer s.metrics.subscriptions.Dec()
	if err := ss.Send(confirmation()); err != nil {
		return err
	}
	sub := subscription{cursor: c, ss: ss}
	for {
		atEnd, err := sub.advance()
		if err != nil {
			return err
		}
		if !atEnd {
			if err := s.interrupted(ss); err != nil {
				return err
			}
			continue
		}
		select {
		case <-watcher.C:
		case <-s.ending:
			return errEnding
		case <-ss.Context().Done():
			return storageStatus(ss.Context(), ss.Context().Err())
		}
	}
}

// advance sends the next page, and what is to be said after it. It reports whether that was the last for now.
func (s *subscription) advance() (atEnd bool, err error) {
	budget := math.MaxInt
	if s.filter != nil {
		budget = s.filter.interval - s.considered
	}
	p, err := s.page(math.MaxUint64, budget)
	var deleted *storage.DeletedError
	switch {
	case errors.As(err, &deleted):
		return false, s.bury(deleted)
	case errors.Is(err, storage.ErrNoStream): // there may be one some day
		p = page{end: true}
	case err != nil:
		return false, storageStatus(s.ss.Context(), err)
	}
	if err := sendFrames(s.ss, p.frames); err != nil {
		return false, err
	}
	s.considered += p.considered
	s.backlog += p.considered
	if s.filter != nil && s.considered >= s.filter.interval {
		if err := s.sendCheckpoint(); err != nil {
			return false, err
		}
	}
	if !p.end {
		s.live = s.live && s.backlog < fallenBehind
		return false, nil
	}
	s.backlog = 0
	if s.live {
		return true, nil
	}
	s.live = true
	if s.filter != nil {
		if err := s.sendCheckpoint(); err != nil {
			return false, err
		}
	}
	return true, s.ss.Send(caughtUp())
}

// bury sends the tombstone, the last event of its stream, and returns the status that ends the subscription.
func (s *subscription) bury(deleted *storage.DeletedError) error {
	for rec, err := range s.store.ReadAll(deleted.Tombstone, storage.Forwards) {
		if err != nil {
			return storageStatus(s.ss.Context(), err)
		}
		if string(rec.Stream) == s.stream {
			if err := s.ss.SendMsg(frame(appendEvent(nil, rec, nil, s.stringIDs))); err != nil {
				return err
			}
		}
		break
	}
	return storageStatus(s.ss.Context(), deleted)
}

// sendCheckpoint says that everything up to here has been considered. The same position is not sent twice.
func (s *subscription) sendCheckpoint() error {
	s.considered = 0
	if s.next <= 1 || s.next-1 <= s.checkpoint {
		return nil
	}
	s.checkpoint = s.next - 1
	return s.ss.Send(&streams.ReadResp{Content: &streams.ReadResp_Checkpoint_{Checkpoint: &streams.ReadResp_Checkpoint{
		CommitPosition:  s.checkpoint,
		PreparePosition: s.checkpoint,
	}}})
}

func confirmation() *streams.ReadResp {
	return &streams.ReadResp{Content: &streams.ReadResp_Confirmation{
		Confirmation: &streams.ReadResp_SubscriptionConfirmation{SubscriptionId: uuid.NewString()},
	}}
}

func caughtUp() *streams.ReadResp {
	return &streams.ReadResp{Content: &streams.ReadResp_CaughtUp_{CaughtUp: &streams.ReadResp_CaughtUp{}}}
}
