package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/anishathalye/porcupine"
	"github.com/google/uuid"
)

// A history of appends and reads is linearizable if each could have happened at one moment between its call and its
// return, one after the other, as the model says.

// request is what was asked of one stream: an append at a revision if it has ids, else a read of all of it.
type request struct {
	stream   string
	expected int // last revision; -1 for none
	ids      string
}

// response is what came back.
type response struct {
	outcome  outcome
	revision int    // of an append that succeeded: the last revision then
	ids      string // of a read
}

type outcome int

const (
	succeeded outcome = iota
	conflicted
	unknown // the call failed; the append may have been written, then or later, or not
)

// Ids are short here: a stream's state is the ids of its events, one after the other.
const idLength = 4

// streamModel is one stream: its state is the ids of its events, in order.
func streamModel() porcupine.Model {
	return porcupine.Model{
		Partition: byStream,
		Init:      func() any { return "" },
		Step: func(state, input, output any) (bool, any) {
			return step(state.(string), input.(request), output.(response))
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%v -> %v", input, output) },
	}
}

func byStream(history []porcupine.Operation) [][]porcupine.Operation {
	parts := map[string][]porcupine.Operation{}
	for _, o := range history {
		stream := o.Input.(request).stream
		parts[stream] = append(parts[stream], o)
	}
	var out [][]porcupine.Operation
	for _, part := range parts {
		out = append(out, part)
	}
	return out
}

func step(state string, in request, out response) (bool, any) {
	if in.ids == "" {
		return out.ids == state, state
	}
	at := (in.expected + 1) * idLength
	fits := at == len(state)
	repeats := at < len(state) && len(state)-at >= len(in.ids) && state[at:at+len(in.ids)] == in.ids
	end := (at+len(in.ids))/idLength - 1
	switch {
	case out.outcome == conflicted:
		return !fits && !repeats, state
	case out.outcome == unknown && !fits: // it has no effect, and never had one if this is the end of the history
		return true, state
	case out.outcome == succeeded && (!fits && !repeats || out.revision != end):
		return false, state
	case fits:
		return true, state + in.ids
	default:
		return true, state
	}
}

const (
	historyStreams = 3
	historyClients = 6
	historyRounds  = 3  // servers, of which all but the last are killed
	historyCalls   = 30 // of each client, at most, in each round
)

// recorder takes down a history.
type recorder struct {
	begun time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
	ids   map[uuid.UUID]string
}

func (r *recorder) now() int64 { return int64(time.Since(r.begun)) }

func (r *recorder) add(client int, in request, out response, call int64) {
	ret := r.now()
	if out.outcome == unknown {
		ret = math.MaxInt64 // it may take effect at any time
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: ret})
}

// short gives an event its short id.
func (r *recorder) short(id uuid.UUID) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.ids[id]
	if !ok {
		s = fmt.Sprintf("%0*d", idLength, len(r.ids))
		r.ids[id] = s
	}
	return s
}

// historyClient is one caller, who makes one call at a time.
type historyClient struct {
	*recorder
	number  int
	known   map[string]int // last revision of each stream, as far as this client knows
	repeats []repeatable
}

// repeatable is an append whose outcome was unknown.
type repeatable struct {
	request
	events []esdb.EventData
}

// call makes one call of some kind, and reports whether the server still answers.
func (h *historyClient) call(c *esdb.Client) bool {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	if len(h.repeats) > 0 {
		last := h.repeats[len(h.repeats)-1]
		h.repeats = h.repeats[:len(h.repeats)-1]
		return h.append(ctx, c, last)
	}
	stream := fmt.Sprint("stream-", rand.IntN(historyStreams))
	if rand.IntN(3) == 0 {
		return h.read(ctx, c, stream)
	}
	expected, ok := h.known[stream]
	if !ok {
		expected = -1
	}
	a := repeatable{request{stream: stream, expected: expected}, happened(1 + rand.IntN(2))}
	for _, e := range a.events {
		a.ids += h.short(e.EventID)
	}
	return h.append(ctx, c, a)
}

func (h *historyClient) append(ctx context.Context, c *esdb.Client, a repeatable) bool {
	var expected esdb.ExpectedRevision = esdb.NoStream{}
	if a.expected >= 0 {
		expected = esdb.Revision(uint64(a.expected))
	}
	call := h.now()
	res, err := c.AppendToStream(ctx, a.stream, esdb.AppendToStreamOptions{ExpectedRevision: expected}, a.events...)
	switch {
	case err == nil:
		h.known[a.stream] = int(res.NextExpectedVersion)
		h.add(h.number, a.request, response{outcome: succeeded, revision: int(res.NextExpectedVersion)}, call)
	case errorCode(err) == esdb.ErrorCodeWrongExpectedVersion:
		h.add(h.number, a.request, response{outcome: conflicted}, call)
		return h.read(ctx, c, a.stream)
	default:
		h.add(h.number, a.request, response{outcome: unknown}, call)
		h.repeats = append(h.repeats, a)
		return false
	}
	return true
}

func (h *historyClient) read(ctx context.Context, c *esdb.Client, stream string) bool {
	call, ids := h.now(), ""
	r, err := c.ReadStream(ctx, stream, esdb.ReadStreamOptions{}, math.MaxUint64)
	if err != nil {
		return false
	}
	defer r.Close()
	for {
		e, err := r.Recv()
		if errors.Is(err, io.EOF) || errorCode(err) == esdb.ErrorCodeResourceNotFound {
			h.known[stream] = len(ids)/idLength - 1
			h.add(h.number, request{stream: stream}, response{ids: ids}, call)
			return true
		}
		if err != nil {
			return false
		}
		ids += h.short(e.Event.EventID)
	}
}

// record has clients append to and read the same streams, while the server is killed and started again.
func record(t *testing.T) []porcupine.Operation {
	rec := &recorder{begun: time.Now(), ids: map[uuid.UUID]string{}}
	clients := make([]*historyClient, historyClients)
	for i := range clients {
		clients[i] = &historyClient{recorder: rec, number: i, known: map[string]int{}}
	}
	dir := t.TempDir()
	for round := range historyRounds {
		p := startProcess(t, dir)
		var wg sync.WaitGroup
		busy := make(chan struct{}) // closed when a client is half through
		var once sync.Once
		for _, h := range clients {
			wg.Go(func() {
				c, err := newClient(p.url())
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = c.Close() }()
				for i := 0; i < historyCalls && h.call(c); i++ {
					if i == historyCalls/2 {
						once.Do(func() { close(busy) })
					}
				}
			})
		}
		if round < historyRounds-1 {
			<-busy
			p.kill()
		}
		wg.Wait()
		p.kill()
	}
	return rec.ops
}

// What clients see of a stream, across kills of the server, is what one of them after the other could have seen.
func TestLinearizability(t *testing.T) {
	history := record(t)
	counts := map[outcome]int{}
	for _, o := range history {
		counts[o.Output.(response).outcome]++
	}
	if result := porcupine.CheckOperationsTimeout(streamModel(), history, testTimeout); result != porcupine.Ok {
		t.Fatalf("the history of %d calls: %s", len(history), result)
	}
	t.Logf("%d calls: %d succeeded, %d conflicted, %d with unknown outcome", len(history), counts[succeeded], counts[conflicted], counts[unknown])

	// The check can fail: each of these changes would be a defect of the server.
	for name, breakIt := range map[string]func([]porcupine.Operation) bool{
		"lost":    loseAcknowledged,
		"stale":   makeStale,
		"doubled": acknowledgeConflict,
	} {
		broken := slices.Clone(history)
		if !breakIt(broken) {
			t.Errorf("%s: the history has no call to change", name)
			continue
		}
		if result := porcupine.CheckOperationsTimeout(streamModel(), broken, testTimeout); result != porcupine.Illegal {
			t.Errorf("%s: the broken history is %s", name, result)
		}
	}
}

// loseAcknowledged takes the last event out of what the last read of a stream saw.
func loseAcknowledged(history []porcupine.Operation) bool {
	for i, o := range slices.Backward(history) {
		if out := o.Output.(response); out.ids != "" {
			out.ids = out.ids[:len(out.ids)-idLength] + "lost"
			history[i].Output = out
			return true
		}
	}
	return false
}

// makeStale has the last read see nothing.
func makeStale(history []porcupine.Operation) bool {
	for i, o := range slices.Backward(history) {
		if out := o.Output.(response); out.ids != "" {
			history[i].Output = response{}
			return true
		}
	}
	return false
}

// acknowledgeConflict has an append succeed that was refused.
func acknowledgeConflict(history []porcupine.Operation) bool {
	for i, o := range history {
		if in := o.Input.(request); o.Output.(response).outcome == conflicted {
			history[i].Output = response{outcome: succeeded, revision: in.expected + len(in.ids)/idLength}
			return true
		}
	}
	return false
}
