package eventstore_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/purserhq/purser/services/eventstore"
)

func dial(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestRestartKeepsEventsAndRepeats(t *testing.T) {
	dir, stream, events := t.TempDir(), newStream(), happened(3)
	s := start(t, dir)
	first := appendTo(t, connect(t, s.url()), stream, esdb.NoStream{}, events...)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	c := connect(t, start(t, dir).url())
	wantRevisions(t, readStream(t, c, stream, esdb.ReadStreamOptions{}, 10), 0, 1, 2)
	if again := appendTo(t, c, stream, esdb.NoStream{}, events...); *again != *first {
		t.Errorf("repeat after the restart: got %+v, want %+v", again, first)
	}
	if next := appendTo(t, c, stream, esdb.Revision(2), happened(1)...); next.CommitPosition <= first.CommitPosition {
		t.Errorf("position %d after %d", next.CommitPosition, first.CommitPosition)
	}
}

// Scripts wait for the users to see that a server is ready. They are written once.
func TestUsersAreThere(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		s := start(t, dir)
		c := connect(t, s.url())
		var logins []string
		for _, e := range readStream(t, c, "$users", esdb.ReadStreamOptions{From: esdb.Start{}}, 10) {
			logins = append(logins, string(e.Event.Data))
		}
		if got := strings.Join(logins, " "); got != "admin ops" {
			t.Errorf("got users %q", got)
		}
		for _, login := range logins {
			wantRevisions(t, readStream(t, c, "$user-"+login, esdb.ReadStreamOptions{From: esdb.Start{}}, 10), 0)
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestShutdownEndsSubscriptions(t *testing.T) {
	s := start(t, t.TempDir())
	c := connect(t, s.url())
	sub, err := c.SubscribeToAll(testContext(t), esdb.SubscribeToAllOptions{From: esdb.End{}})
	if err != nil {
		t.Fatal(err)
	}
	if e := sub.Recv(); e.CaughtUp == nil {
		t.Fatalf("got %+v", e)
	}
	begin := time.Now()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("stopping took %v, as if the subscription had to be cut off", took)
	}
	e := sub.Recv()
	if e.SubscriptionDropped == nil || status.Code(e.SubscriptionDropped.Error) != codes.Unavailable {
		t.Errorf("got %+v", e.SubscriptionDropped)
	}
}

// A consumer that has stopped receiving can't hold up the shutdown for long.
func TestShutdownCutsOffStalledConsumers(t *testing.T) {
	s := start(t, t.TempDir())
	c, stream := connect(t, s.url()), newStream()
	for range 20 {
		e := happened(1)
		e[0].Data = bytes.Repeat([]byte("x"), 1<<19)
		appendTo(t, c, stream, esdb.Any{}, e...)
	}
	if _, err := c.SubscribeToAll(testContext(t), esdb.SubscribeToAllOptions{From: esdb.Start{}}); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop() }()
	select {
	case err := <-stopped:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the server does not stop")
	}
}

func TestOneClearSentence(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	log := slog.New(slog.DiscardHandler)
	_, err := eventstore.Open(eventstore.Config{Dir: t.TempDir(), Addr: s.Addr()}, log, nil)
	if err == nil || !strings.Contains(err.Error(), "port is in use") || strings.Contains(err.Error(), "\n") {
		t.Errorf("port in use: got %v", err)
	}
	_, err = eventstore.Open(eventstore.Config{Dir: dir, Addr: "127.0.0.1:0"}, log, nil)
	if err == nil || !strings.Contains(err.Error(), "in use by another process") || strings.Contains(err.Error(), "\n") {
		t.Errorf("directory in use: got %v", err)
	}
}

func TestHTTPAndGRPCShareThePort(t *testing.T) {
	reg := prometheus.NewRegistry()
	s, err := eventstore.Open(eventstore.Config{Dir: t.TempDir(), Addr: "127.0.0.1:0"}, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	r := serve(t, s)
	appendTo(t, connect(t, r.url()), newStream(), esdb.Any{}, happened(2)...)

	for query, want := range map[string]int{
		"": 204, "?liveCode=200": 200, "?liveCode=299": 299, "?liveCode=500": 204, "?liveCode=-200": 204, "?liveCode=yes": 204,
	} {
		if code, _ := get(t, r, "/health/live"+query); code != want {
			t.Errorf("/health/live%s: got %d, want %d", query, code, want)
		}
	}
	code, body := get(t, r, "/metrics")
	if code != http.StatusOK || !strings.Contains(body, "purser_eventstore_events_total 6") { // four of them are about users
		t.Errorf("/metrics: got %d\n%s", code, body)
	}
	h, err := grpc_health_v1.NewHealthClient(dial(t, r.Addr())).Check(testContext(t), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || h.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("gRPC health: %v, %v", h, err)
	}
	// A connection that says nothing holds up neither the others nor, at the end of the test, the shutdown.
	silent, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	if code, _ := get(t, r, "/health/live"); code != http.StatusNoContent {
		t.Errorf("/health/live beside a silent connection: got %d", code)
	}
}

func get(t *testing.T, r *running, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + r.Addr() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func structured() *shared.UUID {
	return &shared.UUID{Value: &shared.UUID_String_{String_: uuid.NewString()}}
}

func options(stream string) *streams.AppendReq {
	return &streams.AppendReq{Content: &streams.AppendReq_Options_{Options: &streams.AppendReq_Options{
		StreamIdentifier:       &shared.StreamIdentifier{StreamName: []byte(stream)},
		ExpectedStreamRevision: &streams.AppendReq_Options_Any{Any: &shared.Empty{}},
	}}}
}

func message(id *shared.UUID, meta map[string]string, data []byte) *streams.AppendReq {
	return &streams.AppendReq{Content: &streams.AppendReq_ProposedMessage_{ProposedMessage: &streams.AppendReq_ProposedMessage{
		Id: id, Metadata: meta, Data: data,
	}}}
}

// Refused appends answer with the status and the trailers that clients look at, after all that the client sends.
func TestRefusedAppends(t *testing.T) {
	c := streams.NewStreamsClient(dial(t, start(t, t.TempDir()).Addr()))
	meta := map[string]string{"type": "T", "content-type": "application/json"}
	noExpectation := options("s")
	noExpectation.GetOptions().ExpectedStreamRevision = nil
	half := bytes.Repeat([]byte("x"), 1<<19)
	for _, tt := range []struct {
		name     string
		send     []*streams.AppendReq
		code     codes.Code
		trailers map[string]string
	}{
		{"nothing", nil, codes.InvalidArgument, nil},
		{"no options", []*streams.AppendReq{message(structured(), meta, nil)}, codes.InvalidArgument, nil},
		{"no stream", []*streams.AppendReq{options("")}, codes.InvalidArgument, nil},
		{"metadata of no stream", []*streams.AppendReq{options("$$")}, codes.InvalidArgument, nil},
		{"not UTF-8", []*streams.AppendReq{options("\xff")}, codes.InvalidArgument, nil},
		{"$all", []*streams.AppendReq{options("$all")}, codes.PermissionDenied, map[string]string{"exception": "access-denied"}},
		{"no expectation", []*streams.AppendReq{noExpectation, message(structured(), meta, nil)}, codes.InvalidArgument, nil},
		{"no type", []*streams.AppendReq{options("s"), message(structured(), map[string]string{"content-type": "x"}, nil)},
			codes.InvalidArgument, map[string]string{
				"exception": "missing-required-metadata-property", "required-metadata-properties": "type,content-type",
			}},
		{"empty type", []*streams.AppendReq{options("s"), message(structured(), map[string]string{"type": "", "content-type": "x"}, nil)}, codes.Unknown, nil},
		{"no id", []*streams.AppendReq{options("s"), message(nil, meta, nil)}, codes.Unknown, nil},
		{"too large", []*streams.AppendReq{options("s"), message(structured(), meta, half), message(structured(), meta, half), message(structured(), meta, half)},
			codes.InvalidArgument, map[string]string{
				"exception": "maximum-append-size-exceeded", "maximum-append-size": "1048576",
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var trailer metadata.MD
			call, err := c.Append(testContext(t), grpc.Trailer(&trailer))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range tt.send {
				if err := call.Send(m); err != nil {
					t.Fatalf("the call ended while it was sending: %v", err)
				}
			}
			_, err = call.CloseAndRecv()
			wantRefusal(t, "append", err, trailer, tt.code, tt.trailers)
		})
	}
}

func TestRefusedReads(t *testing.T) {
	c := streams.NewStreamsClient(dial(t, start(t, t.TempDir()).Addr()))
	good := func() *streams.ReadReq_Options {
		return &streams.ReadReq_Options{
			StreamOption: &streams.ReadReq_Options_All{All: &streams.ReadReq_Options_AllOptions{
				AllOption: &streams.ReadReq_Options_AllOptions_Start{Start: &shared.Empty{}},
			}},
			CountOption:  &streams.ReadReq_Options_Count{Count: 1},
			FilterOption: &streams.ReadReq_Options_NoFilter{NoFilter: &shared.Empty{}},
			UuidOption:   &streams.ReadReq_Options_UUIDOption{Content: &streams.ReadReq_Options_UUIDOption_Structured{Structured: &shared.Empty{}}},
		}
	}
	filter := func(o *streams.ReadReq_Options, f *streams.ReadReq_Options_FilterOptions) {
		f.Filter = &streams.ReadReq_Options_FilterOptions_EventType{EventType: &streams.ReadReq_Options_FilterOptions_Expression{Regex: "("}}
		o.FilterOption = &streams.ReadReq_Options_Filter{Filter: f}
	}
	subscription := &streams.ReadReq_Options_Subscription{Subscription: &streams.ReadReq_Options_SubscriptionOptions{}}
	for name, tt := range map[string]struct {
		change func(*streams.ReadReq_Options)
		code   codes.Code
	}{
		"none of these": {func(*streams.ReadReq_Options) {}, codes.OK},
		"no stream":     {func(o *streams.ReadReq_Options) { o.StreamOption = nil }, codes.InvalidArgument},
		"no count":      {func(o *streams.ReadReq_Options) { o.CountOption = nil }, codes.InvalidArgument},
		"count zero":    {func(o *streams.ReadReq_Options) { o.CountOption = &streams.ReadReq_Options_Count{} }, codes.Unknown},
		"no filter":     {func(o *streams.ReadReq_Options) { o.FilterOption = nil }, codes.InvalidArgument},
		"no id format":  {func(o *streams.ReadReq_Options) { o.UuidOption = nil }, codes.InvalidArgument},
		"backwards subscription": {func(o *streams.ReadReq_Options) {
			o.CountOption, o.ReadDirection = subscription, streams.ReadReq_Options_Backwards
		}, codes.InvalidArgument},
		"bad pattern": {func(o *streams.ReadReq_Options) {
			filter(o, &streams.ReadReq_Options_FilterOptions{Window: &streams.ReadReq_Options_FilterOptions_Max{Max: 1}})
		}, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			opts := good()
			tt.change(opts)
			call, err := c.Read(testContext(t), &streams.ReadReq{Options: opts})
			if err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, err = call.Recv()
			}
			if err == io.EOF {
				err = nil
			}
			if status.Code(err) != tt.code {
				t.Errorf("got %v, want %v", err, tt.code)
			}
		})
	}
}

func TestWhatIsNotOfferedIsUnimplemented(t *testing.T) {
	c := streams.NewStreamsClient(dial(t, start(t, t.TempDir()).Addr()))
	call, err := c.BatchAppend(testContext(t))
	if err == nil {
		_, err = call.Recv()
	}
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("BatchAppend: got %v", err)
	}
}

// A read of $all with a filter, which the official client can't ask for, counts only what matches.
func TestFilteredRead(t *testing.T) {
	s := start(t, t.TempDir())
	c := connect(t, s.url())
	for i := range 50 {
		appendTo(t, c, fmt.Sprintf("%c-%d", 'a'+i%2, i), esdb.NoStream{}, happened(1)...)
	}
	for _, dir := range []streams.ReadReq_Options_ReadDirection{streams.ReadReq_Options_Forwards, streams.ReadReq_Options_Backwards} {
		all := &streams.ReadReq_Options_AllOptions{AllOption: &streams.ReadReq_Options_AllOptions_Start{Start: &shared.Empty{}}}
		if dir == streams.ReadReq_Options_Backwards {
			all.AllOption = &streams.ReadReq_Options_AllOptions_End{End: &shared.Empty{}}
		}
		call, err := streams.NewStreamsClient(dial(t, s.Addr())).Read(testContext(t), &streams.ReadReq{Options: &streams.ReadReq_Options{
			StreamOption:  &streams.ReadReq_Options_All{All: all},
			ReadDirection: dir,
			CountOption:   &streams.ReadReq_Options_Count{Count: 20},
			UuidOption:    &streams.ReadReq_Options_UUIDOption{Content: &streams.ReadReq_Options_UUIDOption_String_{String_: &shared.Empty{}}},
			FilterOption: &streams.ReadReq_Options_Filter{Filter: &streams.ReadReq_Options_FilterOptions{
				Filter: &streams.ReadReq_Options_FilterOptions_StreamIdentifier{StreamIdentifier: &streams.ReadReq_Options_FilterOptions_Expression{Prefix: []string{"b-"}}},
				Window: &streams.ReadReq_Options_FilterOptions_Count{Count: &shared.Empty{}},
			}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for {
			m, err := call.Recv()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			e := m.GetEvent().GetEvent()
			if !strings.HasPrefix(string(e.GetStreamIdentifier().GetStreamName()), "b-") || e.GetId().GetString_() == "" {
				t.Errorf("got %v", e)
			}
			n++
		}
		if n != 20 {
			t.Errorf("%v: got %d events, want 20", dir, n)
		}
	}
}
