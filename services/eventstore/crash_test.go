package eventstore_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"

	"github.com/purserhq/purser/services/eventstore/storage"
)

const (
	crashRounds     = 4
	crashSoakRounds = 60
	ownWriters      = 8 // each alone on its stream
	sharedWriters   = 4 // all on one stream
	sharedStream    = "shared-1"
)

// attempt is an append of which a writer may not know the outcome.
type attempt struct {
	stream   string
	expected esdb.ExpectedRevision
	events   []esdb.EventData
	position uint64 // of the last event, once acknowledged
}

func (a *attempt) append(ctx context.Context, c *esdb.Client) error {
	res, err := c.AppendToStream(ctx, a.stream, esdb.AppendToStreamOptions{ExpectedRevision: a.expected}, a.events...)
	if err == nil {
		a.position = res.CommitPosition
	}
	return err
}

// stored is where an event was seen in the log.
type stored struct {
	id       uuid.UUID
	position uint64
	stream   string
	revision uint64
}

// crashTest kills a server again and again, and knows what must have survived.
type crashTest struct {
	t   *testing.T
	dir string
	rng *rand.Rand

	mu           sync.Mutex
	acknowledged []*attempt
	unknown      []*attempt // in the round so far
	refused      []*attempt // repeats that found that another append had taken their place

	log            []stored // as last seen
	ambiguous, had int      // appends of unknown outcome, and those of them that had been written
}

// A server that is killed under load, again and again, loses no event that it acknowledged, doubles none, and never
// changes the order of its log.
func TestKill(t *testing.T) {
	rounds := crashRounds
	if soak() {
		rounds = crashSoakRounds
	}
	seed := uint64(time.Now().UnixNano())
	c := crashTest{t: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(seed, 0))}
	begun := time.Now()
	for round := range rounds {
		p := startProcess(t, c.dir)
		c.repeat(p)
		c.check(p)
		if t.Failed() {
			t.Fatalf("round %d with seed %d\n%s", round, seed, p.stderr)
		}
		c.load(p)
		if report, err := storage.Verify(c.dir, slog.New(slog.DiscardHandler), nil); err != nil || !report.Sound() {
			t.Fatalf("round %d: verify: %v, %+v", round, err, report)
		}
	}
	p := startProcess(t, c.dir)
	c.repeat(p)
	c.check(p)
	p.stop(t)
	t.Logf("%d kills in %v: %d appends acknowledged, %d events; %d appends of unknown outcome, of which %d had been written, %d were written by their repeat and %d had lost a race",
		rounds, time.Since(begun).Round(time.Second), len(c.acknowledged), len(c.log), c.ambiguous, c.had, c.ambiguous-c.had-len(c.refused), len(c.refused))
}

// load runs the writers and kills the server in the middle of it.
func (c *crashTest) load(p *serverProcess) {
	enough := int64(100 + c.rng.IntN(1000))
	var acknowledged atomic.Int64
	reached := make(chan struct{})
	var once sync.Once
	var wg sync.WaitGroup
	for w := range ownWriters + sharedWriters {
		stream := fmt.Sprintf("own-%d", w)
		if w >= ownWriters {
			stream = sharedStream
		}
		wg.Go(func() {
			// A client whose server dies can't be shared: callers would wait for one another for ever.
			client, err := newClient(p.url())
			if err != nil {
				c.t.Error(err)
				return
			}
			defer func() { _ = client.Close() }()
			for c.appendOne(client, stream) {
				if acknowledged.Add(1) >= enough {
					once.Do(func() { close(reached) })
				}
			}
		})
	}
	select {
	case <-reached:
	case <-time.After(testTimeout):
		c.t.Error("the writers do not get on")
	}
	p.kill()
	wg.Wait()
}

// appendOne appends to the end of a stream, and reports whether the server still answers.
func (c *crashTest) appendOne(client *esdb.Client, stream string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	expected, err := lastRevision(ctx, client, stream)
	if err != nil {
		return false
	}
	a := &attempt{stream: stream, expected: expected, events: happened(1 + rand.IntN(3))}
	err = a.append(ctx, client)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		c.acknowledged = append(c.acknowledged, a)
	case errorCode(err) == esdb.ErrorCodeWrongExpectedVersion && stream == sharedStream:
	default:
		c.unknown = append(c.unknown, a)
		return false
	}
	return true
}

func lastRevision(ctx context.Context, client *esdb.Client, stream string) (esdb.ExpectedRevision, error) {
	opts := esdb.ReadStreamOptions{Direction: esdb.Backwards, From: esdb.End{}}
	r, err := client.ReadStream(ctx, stream, opts, 1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	e, err := r.Recv()
	if errorCode(err) == esdb.ErrorCodeResourceNotFound {
		return esdb.NoStream{}, nil
	}
	if err != nil {
		return nil, err
	}
	return esdb.Revision(e.Event.EventNumber), nil
}

// repeat sends again what had no answer, with the same ids.
func (c *crashTest) repeat(p *serverProcess) {
	client := connect(c.t, p.url())
	before := map[uuid.UUID]bool{}
	for _, s := range c.read(client) {
		before[s.id] = true
	}
	for _, a := range c.unknown {
		c.ambiguous++
		if before[a.events[0].EventID] {
			c.had++
		}
		switch err := a.append(testContext(c.t), client); {
		case err == nil:
			c.acknowledged = append(c.acknowledged, a)
		case errorCode(err) == esdb.ErrorCodeWrongExpectedVersion && a.stream == sharedStream:
			c.refused = append(c.refused, a)
		default:
			c.t.Errorf("repeat of an append to %s expecting %v: %v", a.stream, a.expected, err)
		}
	}
	c.unknown = nil
}

func (c *crashTest) read(client *esdb.Client) []stored {
	var log []stored
	for _, e := range readAll(c.t, client, esdb.ReadAllOptions{From: esdb.Start{}}, math.MaxUint64) {
		r := e.Event
		log = append(log, stored{r.EventID, r.Position.Commit, r.StreamID, r.EventNumber})
	}
	return log
}

// check compares the log with what was seen of it before and with what was acknowledged.
func (c *crashTest) check(p *serverProcess) {
	log := c.read(connect(c.t, p.url()))
	if len(log) < len(c.log) {
		c.t.Fatalf("the log had %d events and has %d", len(c.log), len(log))
	}
	for i, before := range c.log {
		if log[i] != before {
			c.t.Fatalf("event %d of the log was %v and is %v", i, before, log[i])
		}
	}
	c.log = log
	places, next := map[uuid.UUID]stored{}, map[string]uint64{}
	for i, s := range log {
		if i > 0 && s.position <= log[i-1].position {
			c.t.Fatalf("%v after %v", s, log[i-1])
		}
		if first, doubled := places[s.id]; doubled {
			c.t.Fatalf("one event twice: %v and %v", first, s)
		}
		if s.revision != next[s.stream] {
			c.t.Fatalf("%v where revision %d is due", s, next[s.stream])
		}
		places[s.id] = s
		next[s.stream]++
	}
	for _, a := range c.acknowledged {
		for _, e := range a.events {
			if s, ok := places[e.EventID]; !ok || s.stream != a.stream {
				c.t.Fatalf("an acknowledged event of %s is lost: %v", a.stream, s)
			}
		}
		if last := places[a.events[len(a.events)-1].EventID]; last.position != a.position {
			c.t.Fatalf("an append was acknowledged at position %d and is %v", a.position, last)
		}
	}
	for _, a := range c.refused {
		if s, ok := places[a.events[0].EventID]; ok {
			c.t.Fatalf("an append was refused and is there: %v", s)
		}
	}
}
