package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"
)

const (
	dataBytes     = 200
	metadataBytes = 100
	fillEvents    = 500 // events of one append that fills a store
)

// Connect makes a client of an event store on this machine, the official one. It is connected: callers that wait for a
// client's first connection can't be interrupted.
func Connect(ctx context.Context, addr string) (*esdb.Client, error) {
	cfg, err := esdb.ParseConnectionString("esdb://" + addr + "?tls=false")
	if err != nil {
		return nil, err
	}
	cfg.Logger = esdb.NoopLogging()
	c, err := esdb.NewClient(cfg)
	if err != nil {
		return nil, err
	}
	r, err := c.ReadAll(ctx, esdb.ReadAllOptions{From: esdb.Start{}}, 1)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	r.Close()
	return c, nil
}

// Append is the load of so many writers that each append to a stream of their own, one event of 300 bytes after the other,
// at the exact revision.
func Append(figure string, c *esdb.Client, writers int) Load {
	type writer struct {
		*events
		expected esdb.ExpectedRevision
	}
	all := make([]writer, writers)
	for i := range all {
		all[i] = writer{newEvents(i), esdb.NoStream{}}
	}
	return Load{Figure: figure, Unit: "appends/s", Run: ClosedLoop(writers, func(ctx context.Context, i int) error {
		w := &all[i]
		done, err := c.AppendToStream(ctx, streamOf(i), esdb.AppendToStreamOptions{ExpectedRevision: w.expected}, w.next())
		if err != nil {
			return err
		}
		w.expected = esdb.Revision(done.NextExpectedVersion)
		return nil
	})}
}

// Fill appends so many events of 300 bytes for [ReadAll] to read.
func Fill(ctx context.Context, c *esdb.Client, count int) error {
	e := newEvents(0)
	for n := 0; n < count; {
		batch := make([]esdb.EventData, min(fillEvents, count-n))
		for i := range batch {
			batch[i] = e.next()
		}
		if _, err := c.AppendToStream(ctx, streamOf(n), esdb.AppendToStreamOptions{ExpectedRevision: esdb.NoStream{}}, batch...); err != nil {
			return fmt.Errorf("fill the store: %w", err)
		}
		n += len(batch)
	}
	return nil
}

// ReadAll is the load of one reader that reads so many events of $all from the first, again and again.
func ReadAll(figure string, c *esdb.Client, count int) Load {
	return Load{Figure: figure, Unit: "events/s", Run: func(ctx context.Context, d time.Duration) (Sample, error) {
		reads, err := ClosedLoop(1, func(ctx context.Context, _ int) error { return readAll(ctx, c, count) })(ctx, d)
		return Sample{Units: reads.Units * count, Elapsed: reads.Elapsed}, err
	}}
}

func readAll(ctx context.Context, c *esdb.Client, count int) error {
	r, err := c.ReadAll(ctx, esdb.ReadAllOptions{From: esdb.Start{}}, uint64(count))
	if err != nil {
		return err
	}
	defer r.Close()
	for n := range count {
		if _, err := r.Recv(); err != nil {
			return fmt.Errorf("after %d of %d events: %w", n, count, err)
		}
	}
	return nil
}

func streamOf(n int) string { return fmt.Sprintf("bench-%d", n) }

// events makes events of the same size, the same ones in every run; their text hardly compresses, like that of real ones.
type events struct {
	rand *rand.ChaCha8
}

func newEvents(source int) *events { return &events{newRand("events", source)} }

func (e *events) next() esdb.EventData {
	return esdb.EventData{
		EventID: uuid.Must(uuid.NewRandomFromReader(e.rand)), EventType: "Happened", ContentType: esdb.ContentTypeJson,
		Data: e.object(dataBytes), Metadata: e.object(metadataBytes),
	}
}

// object is a JSON object of so many bytes.
func (e *events) object(size int) []byte {
	const (
		start, end = `{"text":"`, `"}`
		letters    = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-"
	)
	b := make([]byte, size)
	text := b[copy(b, start) : size-len(end)]
	_, _ = e.rand.Read(text)
	for i := range text {
		text[i] = letters[text[i]%byte(len(letters))]
	}
	copy(b[size-len(end):], end)
	return b
}
