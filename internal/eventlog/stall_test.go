package eventlog_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
)

// stalling passes everything on to a store; while stalled is set, subscriptions receive nothing and are not told so. So it is
// with as many reads as are to be lost.
type stalling struct {
	streams.UnimplementedStreamsServer
	store         streams.StreamsClient
	stalled       atomic.Bool
	swallowed     chan struct{}
	subscriptions atomic.Int64
	lost          atomic.Int64
}

// stallBefore puts a stalling server before a store, and returns its address.
func stallBefore(t *testing.T, addr string) (*stalling, string) {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	p := &stalling{store: streams.NewStreamsClient(conn), swallowed: make(chan struct{}, 100)}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	streams.RegisterStreamsServer(server, p)
	served := make(chan error, 1)
	go func() { served <- server.Serve(lis) }()
	t.Cleanup(func() {
		server.Stop()
		if err := errors.Join(<-served, conn.Close()); err != nil {
			t.Error(err)
		}
	})
	return p, lis.Addr().String()
}

func (p *stalling) Read(req *streams.ReadReq, ss streams.Streams_ReadServer) error {
	from, err := p.store.Read(ss.Context(), req)
	if err != nil {
		return err
	}
	subscription := req.GetOptions().GetSubscription() != nil
	if subscription {
		p.subscriptions.Add(1)
	} else if p.lost.Add(-1) >= 0 {
		<-ss.Context().Done()
		return ss.Context().Err()
	}
	for {
		m, err := from.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if subscription && p.stalled.Load() {
			p.swallowed <- struct{}{}
			<-ss.Context().Done()
			return ss.Context().Err()
		}
		if err := ss.Send(m); err != nil {
			return err
		}
	}
}

func TestAStalledSubscriptionIsTakenUpAgain(t *testing.T) {
	s := newStore(t)
	proxy, addr := stallBefore(t, s.addr)
	direct := s.open()
	l, err := eventlog.Open("esdb://"+addr+"?tls=false", eventschema.New(), quiet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	l.SetSilence(100 * time.Millisecond)

	ctx, cancel := context.WithCancel(within(t, 30*time.Second))
	got, caughtUp, ended := make(chan eventlog.Recorded, 10), make(chan struct{}, 10), make(chan error, 1)
	go func() {
		ended <- l.Subscribe(ctx, []string{eventschema.Stock}, 0, func(_ context.Context, d eventlog.Delivery) error {
			if d.Event != nil {
				got <- *d.Event
			} else if d.CaughtUp {
				caughtUp <- struct{}{}
			}
			return nil
		})
	}()
	appendOne := func(stream string) {
		t.Helper()
		if _, err := direct.Append(ctx, stream, eventlog.NoStream, []eventlog.NewEvent{received(1)}); err != nil {
			t.Fatal(err)
		}
	}
	<-caughtUp
	// What is silent because there is nothing for it to say has not stalled: events of others are no reason.
	appendOne("product-a")
	<-time.After(time.Second)
	if n := proxy.subscriptions.Load(); n != 1 {
		t.Errorf("a subscription with nothing to say was begun %d times", n)
	}
	proxy.stalled.Store(true)
	appendOne("stock-a")
	<-proxy.swallowed
	proxy.stalled.Store(false)
	select {
	case e := <-got:
		if e.Stream != "stock-a" {
			t.Errorf("received %s", e.Stream)
		}
	case <-ctx.Done():
		t.Fatal("the subscription did not notice that it missed an event")
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAReadWhoseAnswerIsLostIsTriedAgain(t *testing.T) {
	s := newStore(t)
	proxy, addr := stallBefore(t, s.addr)
	l, err := eventlog.Open("esdb://"+addr+"?tls=false", eventschema.New(), quiet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	l.SetPatience(100 * time.Millisecond)
	ctx := within(t, 30*time.Second)
	if _, err := s.open().Append(ctx, "stock-a", eventlog.NoStream, []eventlog.NewEvent{received(1)}); err != nil {
		t.Fatal(err)
	}
	proxy.lost.Store(2)
	if events, err := l.Read(ctx, "stock-a", 0, 0); err != nil || len(events) != 1 {
		t.Errorf("read %d events, %v", len(events), err)
	}
}
