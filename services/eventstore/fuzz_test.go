package eventstore_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/services/eventstore"
)

// The fuzz tests send bytes as they are, as requests of the Streams service, to a real server in this process: a panic
// ends the test. Whatever is sent must be answered, with a status if it makes no sense.

// rawCodec takes and gives messages as bytes.
type rawCodec struct{ encoding.CodecV2 }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func (rawCodec) Name() string { return "proto" }

const (
	// fuzzTimeout is far more than any answer takes.
	fuzzTimeout = 10 * time.Second

	// fuzzAnswers is how many messages of an answer are read before it is given up: a subscription has no end.
	fuzzAnswers = 64
)

// fuzzServer starts a server that holds a few events.
func fuzzServer(f *testing.F) *grpc.ClientConn {
	s, err := eventstore.Open(eventstore.Config{Dir: f.TempDir(), Addr: "127.0.0.1:0"}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		f.Fatal(err)
	}
	r := serve(f, s)
	for i := range 3 {
		appendTo(f, connect(f, r.url()), "s-"+strings.Repeat("x", i), esdb.Any{}, happened(3)...)
	}
	conn := dial(f, r.Addr())
	return conn
}

// call sends the messages and reads the answer, which must end with a status unless it is a subscription's.
func call(t *testing.T, conn *grpc.ClientConn, method string, messages [][]byte, endless bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), fuzzTimeout)
	defer cancel()
	desc := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	cs, err := conn.NewStream(ctx, desc, "/event_store.client.streams.Streams/"+method, grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if err := cs.SendMsg(m); err != nil {
			break // the server has answered already
		}
	}
	if err := cs.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for range fuzzAnswers {
		var answer []byte
		switch err := cs.RecvMsg(&answer); {
		case errors.Is(err, io.EOF):
			return nil
		case status.Code(err) == codes.DeadlineExceeded:
			t.Fatal("no answer")
		case err != nil:
			return err
		}
		if err := proto.Unmarshal(answer, &streams.ReadResp{}); method == "Read" && err != nil {
			t.Fatalf("the answer can't be read: %v", err)
		}
		if endless {
			return nil // confirmed
		}
	}
	return nil
}

// frames cuts fuzz input into messages: each begins with its length in two bytes.
func frames(b []byte) [][]byte {
	var out [][]byte
	for len(b) >= 2 && len(out) < 16 {
		n := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
		out = append(out, b[2:2+n])
		b = b[2+n:]
	}
	return out
}

func framed(t testing.TB, messages ...proto.Message) []byte {
	var b []byte
	for _, m := range messages {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(raw))), raw...)
	}
	return b
}

func FuzzAppend(f *testing.F) {
	conn := fuzzServer(f)
	meta := map[string]string{"type": "T", "content-type": "application/json"}
	whole := framed(f, options("s-"), message(structured(), meta, []byte("{}")), message(structured(), meta, nil))
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 0})
	f.Add(framed(f, message(structured(), meta, nil), options("s-")))
	f.Add(framed(f, options("s-"), options("s-")))
	f.Add(framed(f, options(""), message(nil, nil, nil)))
	f.Add(framed(f, options("$all"), message(structured(), meta, nil)))
	f.Add(framed(f, options(strings.Repeat("x", 5000)), message(structured(), meta, nil)))
	f.Add(framed(f, options("s-"), message(&shared.UUID{Value: &shared.UUID_String_{String_: "no uuid"}}, meta, nil)))
	f.Add(framed(f, options("s-\x00"), message(structured(), map[string]string{"type": "", "content-type": ""}, nil)))
	f.Add(append([]byte{0, 4}, 0x0a, 0xff, 0xff, 0x7f))
	for _, expected := range []uint64{0, 2, 1 << 63, 1<<64 - 1} {
		o := options("s-")
		o.GetOptions().ExpectedStreamRevision = &streams.AppendReq_Options_Revision{Revision: expected}
		f.Add(framed(f, o, message(structured(), meta, nil)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		messages := frames(b)
		if err := call(t, conn, "Append", messages, false); err == nil && len(messages) == 0 {
			t.Error("an append of nothing succeeded")
		}
	})
}

func FuzzRead(f *testing.F) {
	conn := fuzzServer(f)
	add := func(change func(o *streams.ReadReq_Options)) {
		o := &streams.ReadReq_Options{
			StreamOption: &streams.ReadReq_Options_All{All: &streams.ReadReq_Options_AllOptions{
				AllOption: &streams.ReadReq_Options_AllOptions_Start{Start: &shared.Empty{}},
			}},
			CountOption:  &streams.ReadReq_Options_Count{Count: 5},
			FilterOption: &streams.ReadReq_Options_NoFilter{NoFilter: &shared.Empty{}},
			UuidOption:   &streams.ReadReq_Options_UUIDOption{Content: &streams.ReadReq_Options_UUIDOption_Structured{Structured: &shared.Empty{}}},
		}
		change(o)
		raw, err := proto.Marshal(&streams.ReadReq{Options: o})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte{})
	f.Add([]byte{0x0a, 0xff})
	ofStream := func(name string, revision uint64) *streams.ReadReq_Options_Stream {
		return &streams.ReadReq_Options_Stream{Stream: &streams.ReadReq_Options_StreamOptions{
			StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte(name)},
			RevisionOption:   &streams.ReadReq_Options_StreamOptions_Revision{Revision: revision},
		}}
	}
	filtered := func(expression string, prefixes ...string) *streams.ReadReq_Options_Filter {
		return &streams.ReadReq_Options_Filter{Filter: &streams.ReadReq_Options_FilterOptions{
			Filter: &streams.ReadReq_Options_FilterOptions_StreamIdentifier{
				StreamIdentifier: &streams.ReadReq_Options_FilterOptions_Expression{Regex: expression, Prefix: prefixes},
			},
			Window:                       &streams.ReadReq_Options_FilterOptions_Max{Max: 32},
			CheckpointIntervalMultiplier: 1,
		}}
	}
	add(func(*streams.ReadReq_Options) {})
	for _, revision := range []uint64{0, 2, 1 << 63, 1<<64 - 1} {
		for _, direction := range []streams.ReadReq_Options_ReadDirection{streams.ReadReq_Options_Forwards, streams.ReadReq_Options_Backwards} {
			add(func(o *streams.ReadReq_Options) {
				o.StreamOption, o.ReadDirection = ofStream("s-", revision), direction
			})
		}
	}
	add(func(o *streams.ReadReq_Options) { o.StreamOption = ofStream("\xff", 0) })
	add(func(o *streams.ReadReq_Options) {
		o.CountOption = &streams.ReadReq_Options_Subscription{Subscription: &streams.ReadReq_Options_SubscriptionOptions{}}
	})
	add(func(o *streams.ReadReq_Options) { o.FilterOption = filtered("^s-.*$") })
	add(func(o *streams.ReadReq_Options) { o.FilterOption = filtered(`(a*)*\1(?=b)`) })
	add(func(o *streams.ReadReq_Options) { o.FilterOption = filtered(strings.Repeat("(", 2000)) })
	add(func(o *streams.ReadReq_Options) { o.FilterOption = filtered("((((x{99}){99}){99}){99}){99}") })
	add(func(o *streams.ReadReq_Options) { o.FilterOption = filtered("", "", "s") })
	add(func(o *streams.ReadReq_Options) { o.CountOption = nil })
	f.Fuzz(func(t *testing.T, b []byte) {
		var req streams.ReadReq
		malformed := proto.Unmarshal(b, &req) != nil
		err := call(t, conn, "Read", [][]byte{b}, req.GetOptions().GetSubscription() != nil)
		if malformed && err == nil {
			t.Error("a malformed request was answered")
		}
	})
}

// Requests beyond the size limits are refused, not buffered without bound.
func TestOversizedRequests(t *testing.T) {
	conn := dial(t, start(t, t.TempDir()).Addr())
	tooLarge := make([]byte, 17<<20)
	for method, messages := range map[string][][]byte{"Append": {tooLarge}, "Read": {tooLarge}} {
		if err := call(t, conn, method, messages, false); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("%s of %d bytes: %v", method, len(tooLarge), err)
		}
	}
	c := streams.NewStreamsClient(conn)
	stream, err := c.Append(metadata.AppendToOutgoingContext(testContext(t), "x", strings.Repeat("y", 1<<20)))
	if err == nil {
		_, err = stream.CloseAndRecv()
	}
	if err == nil {
		t.Error("a megabyte of headers was taken")
	}
}
