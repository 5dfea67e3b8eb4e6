package aggregate_test

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/secret"
	inventoryevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
)

// The store was wiped, or an older copy of it restored, under a running service.
func TestALogThatWasSetBack(t *testing.T) {
	for _, c := range []struct {
		name    string
		before  []int64 // received through the handler
		keep    int     // events left in the log
		since   []int64 // received through another replica since
		again   int     // which of before is sent again ...
		resumed int64   // ... by the other replica too, as the last
		repeat  bool    // it is in the log
		total   int64   // in the end
	}{
		{name: "wiped", before: []int64{60}, again: 0, total: 60},
		{name: "wiped, and grown to the same length", before: []int64{60}, since: []int64{5}, again: 0, total: 65},
		{name: "wiped, and grown longer", before: []int64{60}, since: []int64{5, 6}, again: 0, total: 71},
		{name: "shorter", before: []int64{1, 60}, keep: 1, again: 1, total: 61},
		{name: "shorter, a repeat of what is left", before: []int64{1, 60}, keep: 1, again: 0, repeat: true, total: 1},
		{name: "shorter, and grown", before: []int64{1, 2, 60}, keep: 1, since: []int64{5, 6}, again: 2, total: 72},
		{name: "another past of the same last event", before: []int64{1, 60}, since: []int64{5}, resumed: 60, again: 0, total: 66},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := newShakyLog()
			s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
			if err != nil {
				t.Fatal(err)
			}
			h, other := newReplica(log, s), newReplica(log, s)
			send := func(to *aggregate.Handler[counter], id string, n int64) aggregate.Done {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				done, err := to.Handle(ctx, "p", command(id, n), receive(n))
				if err != nil {
					t.Fatal(err)
				}
				return done
			}
			var ids []string
			for _, n := range c.before {
				ids = append(ids, uuid.NewString())
				send(h, ids[len(ids)-1], n)
			}
			log.keep(c.keep)
			for _, n := range c.since {
				send(other, uuid.NewString(), n)
			}
			if c.resumed != 0 {
				send(other, ids[len(ids)-1], c.resumed)
			}
			n := c.before[c.again]
			done := send(h, ids[c.again], n)
			if done.Repeat != c.repeat || len(done.Messages) != 1 || done.Messages[0].(*inventoryevent.StockReceived).GetQuantity() != n {
				t.Errorf("answered %+v", done)
			}
			if state, _, err := h.Load(t.Context(), "p"); err != nil || state.total != c.total {
				t.Errorf("the log adds up to %d, %v, want %d", state.total, err, c.total)
			}
		})
	}
}

func TestNothingIsRefusedForWhatHasVanished(t *testing.T) {
	log := newShakyLog()
	h := newHandler(t, log)
	if _, err := h.Handle(t.Context(), "p", command(uuid.NewString(), limit), receive(limit)); err != nil {
		t.Fatal(err)
	}
	log.keep(0)
	if _, err := h.Handle(t.Context(), "p", command(uuid.NewString(), 1), receive(1)); err != nil {
		t.Errorf("refused by a memory of what is gone: %v", err)
	}
}

// That a log was set back, and has come to the same revision again, is noticed within seconds, however often one is refused
// meanwhile.
func TestAMemoryOfWhatHasVanishedIsNotRenewedByRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newShakyLog()
		h := newHandler(t, log)
		send := func(h *aggregate.Handler[counter], n int64) error {
			_, err := h.Handle(t.Context(), "p", command(uuid.NewString(), n), receive(n))
			return err
		}
		if err := send(h, limit); err != nil {
			t.Fatal(err)
		}
		log.keep(0)
		if err := send(newHandler(t, log), 1); err != nil {
			t.Fatal(err)
		}
		for range 6 {
			time.Sleep(time.Second)
			if send(h, 1) == nil {
				return
			}
		}
		t.Error("it is still refused for what is gone")
	})
}
