package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"google.golang.org/grpc"
)

// Each benchmark has a null sibling, in which the same client calls a server that stores nothing: what the client allows.

func BenchmarkAppend(b *testing.B)     { benchmarkAppend(b, start(b, b.TempDir()).url()) }
func BenchmarkAppendNull(b *testing.B) { benchmarkAppend(b, startNull(b)) }
func BenchmarkReadAll(b *testing.B)    { benchmarkReadAll(b, start(b, b.TempDir()).url(), true) }
func BenchmarkReadAllNull(b *testing.B) {
	benchmarkReadAll(b, startNull(b), false)
}

const benchWriters = 64

func benchEvent() esdb.EventData {
	return esdb.EventData{
		EventID: uuid.New(), EventType: "Happened", ContentType: esdb.ContentTypeJson,
		Data: []byte(`{"pad":"` + strings.Repeat("x", 200) + `"}`), Metadata: []byte(`{"pad":"` + strings.Repeat("y", 80) + `"}`),
	}
}

func benchmarkAppend(b *testing.B, url string) {
	c := connect(b, url)
	appendTo(b, c, "warm-up", esdb.Any{}, benchEvent())
	b.ResetTimer()
	var next atomic.Int64
	var wg sync.WaitGroup
	for w := range benchWriters {
		wg.Go(func() {
			stream := fmt.Sprintf("bench-%d", w)
			var expected esdb.ExpectedRevision = esdb.NoStream{}
			for next.Add(1) <= int64(b.N) {
				opts := esdb.AppendToStreamOptions{ExpectedRevision: expected}
				res, err := c.AppendToStream(context.Background(), stream, opts, benchEvent())
				if err != nil {
					b.Error(err)
					return
				}
				expected = esdb.Revision(res.NextExpectedVersion)
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
}

func benchmarkReadAll(b *testing.B, url string, fill bool) {
	c := connect(b, url)
	const each = 500
	for n := 0; fill && n < b.N; n += each {
		events := make([]esdb.EventData, each)
		for i := range events {
			events[i] = benchEvent()
		}
		appendTo(b, c, fmt.Sprintf("bench-%d", n), esdb.NoStream{}, events...)
	}
	b.ResetTimer()
	count := uint64(math.MaxUint64)
	if !fill {
		count = uint64(b.N)
	}
	r, err := c.ReadAll(context.Background(), esdb.ReadAllOptions{From: esdb.Start{}}, count)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	n := 0
	for ; n < b.N; n++ {
		if _, err := r.Recv(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
}

// null acknowledges appends at once and reads the same event for ever.
type null struct {
	streams.UnimplementedStreamsServer
}

func startNull(b *testing.B) string {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := grpc.NewServer()
	streams.RegisterStreamsServer(s, null{})
	served := make(chan error, 1)
	go func() { served <- s.Serve(lis) }()
	b.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil {
			b.Error(err)
		}
	})
	return "esdb://" + lis.Addr().String() + "?tls=false"
}

func (null) Append(ss streams.Streams_AppendServer) error {
	for {
		if _, err := ss.Recv(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	return ss.SendAndClose(&streams.AppendResp{Result: &streams.AppendResp_Success_{Success: &streams.AppendResp_Success{
		CurrentRevisionOption: &streams.AppendResp_Success_CurrentRevision{CurrentRevision: 1},
		PositionOption:        &streams.AppendResp_Success_Position{Position: &streams.AppendResp_Position{CommitPosition: 1, PreparePosition: 1}},
	}}})
}

func (null) Read(req *streams.ReadReq, ss streams.Streams_ReadServer) error {
	e := benchEvent()
	prepared := &streams.ReadResp{Content: &streams.ReadResp_Event{Event: &streams.ReadResp_ReadEvent{
		Event: &streams.ReadResp_ReadEvent_RecordedEvent{
			Id:               &shared.UUID{Value: &shared.UUID_Structured_{Structured: &shared.UUID_Structured{MostSignificantBits: 1, LeastSignificantBits: 2}}},
			StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte("bench-1")},
			Metadata:         map[string]string{"type": e.EventType, "content-type": "application/json", "created": "17000000000000000"},
			CustomMetadata:   e.Metadata,
			Data:             e.Data,
		},
		Position: &streams.ReadResp_ReadEvent_CommitPosition{CommitPosition: 1},
	}}}
	for range req.GetOptions().GetCount() {
		if err := ss.Send(prepared); err != nil {
			return err
		}
	}
	return nil
}
