package eventstore_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
)

const (
	sleptEvents     = 200_000
	sleptEventsRace = 40_000 // with the race detector, which the client spends most of the time under
	sleptBatch      = 500
	sleptWriters    = 4
)

// A subscriber that receives nothing while many events are appended then gets each of them, once, in order.
func TestSleepingSubscriber(t *testing.T) {
	total := sleptEvents
	if raceDetector && !soak() {
		total = sleptEventsRace
	}
	s := start(t, t.TempDir())
	sub := subscribeAll(t, connect(t, s.url()), esdb.SubscribeToAllOptions{From: esdb.Start{}, Filter: prefix("slept-")})

	var wg sync.WaitGroup
	for w := range sleptWriters {
		c := connect(t, s.url())
		wg.Go(func() {
			for range total / sleptWriters / sleptBatch {
				events := happened(sleptBatch)
				if _, err := c.AppendToStream(testContext(t), fmt.Sprint("slept-", w), esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}}, events...); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()

	last, next := uint64(0), map[string]uint64{}
	for n := range total {
		e := sub.event()
		if e.Position.Commit <= last || e.EventNumber != next[e.StreamID] {
			t.Fatalf("event %d is revision %d of %s at position %d, after position %d and revision %d",
				n, e.EventNumber, e.StreamID, e.Position.Commit, last, next[e.StreamID])
		}
		last = e.Position.Commit
		next[e.StreamID]++
	}
	// Nothing is left but what is appended now.
	id := happened(1)[0]
	appendTo(t, connect(t, s.url()), "slept-end", esdb.NoStream{}, id)
	if e := sub.event(); e.EventID != id.EventID {
		t.Errorf("after the last event comes revision %d of %s", e.EventNumber, e.StreamID)
	}
}
