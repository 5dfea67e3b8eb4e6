package eventlog_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/gossip"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
)

const password = "s3cr:t/@ word"

// openWith opens a log, and at the end of the test looks for the password in what was logged.
func openWith(t *testing.T, connection string) *eventlog.Log {
	t.Helper()
	var logged lockedBuffer
	l, err := eventlog.Open(connection, eventschema.New(), slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		wantNoPassword(t, "the log", logged.String())
	})
	return l
}

func wantNoPassword(t *testing.T, where, text string) {
	t.Helper()
	for _, secret := range []string{password, url.QueryEscape(password), url.PathEscape(password), basicAuth("admin", password)} {
		if strings.Contains(text, secret) {
			t.Errorf("%s shows the password: %s", where, text)
		}
	}
}

func basicAuth(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// cluster answers gossip as the nodes of a cluster do.
type cluster struct {
	gossip.UnimplementedGossipServer
	addr string
	mu   sync.Mutex
	info *gossip.ClusterInfo
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{addr: lis.Addr().String()}
	s := grpc.NewServer()
	gossip.RegisterGossipServer(s, c)
	served := make(chan error, 1)
	go func() { served <- s.Serve(lis) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *cluster) Read(context.Context, *shared.Empty) (*gossip.ClusterInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.info, nil
}

func (c *cluster) set(members ...*gossip.MemberInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.info = &gossip.ClusterInfo{Members: members}
}

func member(t *testing.T, addr string, state gossip.MemberInfo_VNodeState) *gossip.MemberInfo {
	t.Helper()
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return &gossip.MemberInfo{State: state, IsAlive: true, HttpEndPoint: &gossip.EndPoint{Address: host, Port: uint32(port)}}
}

// refused is an address at which nobody listens.
func refused(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	return lis.Addr().String()
}

// The leader of a cluster is found by gossip, from one seed or from several of which some are down, and found anew when
// another node has become it.
func TestClustersAreDiscovered(t *testing.T) {
	for name, connection := range map[string]string{
		"discover": "esdb+discover://%[1]s?tls=false",
		"seeds":    "esdb://%[2]s,%[1]s?tls=false&gossipTimeout=1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, first, second := newCluster(t), newStore(t), newStore(t)
			follower := member(t, refused(t), gossip.MemberInfo_Follower)
			c.set(follower, member(t, first.addr, gossip.MemberInfo_Leader))
			l := openWith(t, fmt.Sprintf(connection, c.addr, refused(t)))
			appendAll(t, l, "s-1", eventlog.NoStream, plain("1"), plain("2"))

			first.stop()
			c.set(follower, member(t, second.addr, gossip.MemberInfo_Leader))
			appendAll(t, l, "s-1", eventlog.NoStream, plain("3"))
			if events, err := l.Read(within(t, 20*time.Second), "s-1", 0, 0); err != nil || len(events) != 1 {
				t.Errorf("of the second node: %d events, %v", len(events), err)
			}
		})
	}
}

// secured stands before a store as a server with TLS that knows one user, and refuses all others.
type secured struct {
	addr, caFile string
	calls        func() (let, turnedAway int)
}

func newSecured(t *testing.T, store *store) secured {
	t.Helper()
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: store.addr})
	proxy.Transport = &http.Transport{Protocols: &h2c}
	proxy.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)

	var mu sync.Mutex
	var let, turnedAway int
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		known := r.Header.Get("Authorization") == "Basic "+basicAuth("admin", password)
		open := strings.HasSuffix(r.URL.Path, "/GetSupportedMethods") // to everybody, as on the real server
		mu.Lock()
		switch {
		case known:
			let++
		case !open:
			turnedAway++
		}
		mu.Unlock()
		if known || open {
			proxy.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", strconv.Itoa(int(codes.Unauthenticated)))
	}))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = proxy.ErrorLog
	s.StartTLS()
	t.Cleanup(s.Close)

	caFile := filepath.Join(t.TempDir(), "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(caFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	return secured{addr: s.Listener.Addr().String(), caFile: caFile, calls: func() (int, int) {
		mu.Lock()
		defer mu.Unlock()
		return let, turnedAway
	}}
}

func TestTLSAndPasswords(t *testing.T) {
	s := newSecured(t, newStore(t))
	connect := func(user, settings string) *eventlog.Log {
		return openWith(t, "esdb://"+user+"@"+s.addr+"?"+settings)
	}
	admin := "admin:" + url.QueryEscape(password)
	admin = strings.ReplaceAll(admin, "+", "%20")
	trusted := "tlsCAFile=" + url.QueryEscape(s.caFile)

	l := connect(admin, trusted)
	appendAll(t, l, "s-1", eventlog.NoStream, plain("1"))
	if events, err := l.Read(within(t, 20*time.Second), "s-1", 0, 0); err != nil || len(events) != 1 {
		t.Errorf("over TLS: %d events, %v", len(events), err)
	}
	ctx, cancel := context.WithCancel(within(t, 20*time.Second))
	followed := 0
	_ = l.Follow(ctx, eventlog.Filter{Prefixes: []string{"s-"}}, 0, func(_ context.Context, d eventlog.Delivery) error {
		if d.Event != nil {
			followed++
			cancel()
		}
		return nil
	})
	if let, turnedAway := s.calls(); followed != 1 || let < 3 || turnedAway > 0 {
		t.Errorf("%d events were followed; %d calls with the password, %d without", followed, let, turnedAway)
	}

	if _, err := connect(admin, "tlsVerifyCert=false").Head(within(t, 20*time.Second)); err != nil {
		t.Errorf("an unverified certificate: %v", err)
	}
	for name, c := range map[string]struct {
		log      *eventlog.Log
		within   time.Duration
		definite bool // told at once, and not tried again until the time is up
	}{
		"another password":             {connect("admin:"+url.QueryEscape(password+"!"), trusted), 30 * time.Second, true},
		"a certificate nobody vouches": {connect(admin, ""), time.Second, false},
	} {
		ctx := within(t, c.within)
		_, err := c.log.AppendRecorded(ctx, "s-2", eventlog.NoStream, []eventlog.Recorded{plain("1")})
		if err == nil || errors.Is(err, eventlog.ErrUnavailable) == c.definite || c.definite && ctx.Err() != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		wantNoPassword(t, "the error", err.Error())
	}
}

func TestConnectionStringsThatCannotBeReadDoNotShowThePassword(t *testing.T) {
	escaped := url.QueryEscape(password)
	for _, connection := range []string{
		"esdb://admin:" + password + "@127.0.0.1:2113", // not escaped
		"esdb://admin:" + escaped + "@127.0.0.1:none",
		"esdb://admin:" + escaped + "@127.0.0.1:2113?tlsCAFile=/does/not/exist",
		"esdb://admin:" + escaped + "@127.0.0.1:2113?userCertFile=/only/one",
		"esdb://admin:" + escaped + "@127.0.0.1:2113/path",
		"esdb+discover://admin:" + escaped + "@a:1,b:none",
		"postgres://admin:" + escaped + "@127.0.0.1:5432",
	} {
		l, err := eventlog.Open(connection, eventschema.New(), quiet(), nil)
		if err == nil {
			l.Close()
			t.Errorf("%s can be read", connection)
			continue
		}
		wantNoPassword(t, "the error", err.Error())
	}
}

// Who does not answer, and why, is told without the password.
func TestAStoreThatDoesNotAnswerIsNamed(t *testing.T) {
	nobody, silent := refused(t), newSilent(t)
	user := "admin:" + url.QueryEscape(password) + "@"
	for connection, want := range map[string]string{
		"esdb://" + user + nobody + "?tls=false":                                "the event store at " + nobody + " does not answer: connection refused",
		"esdb+discover://" + user + nobody + "?tls=false":                       "the event store at " + nobody + " does not answer: connection refused",
		"esdb://" + user + silent + "?tls=false":                                "the event store at " + silent + " does not answer: the time is up",
		"esdb://" + user + silent + "," + silent + "?tls=false":                 "the event store at " + silent + "," + silent + " does not answer: the time is up",
		"esdb://" + user + newCluster(t).addr + "?tlsVerifyCert=false&tls=true": "does not answer: authentication handshake failed: ",
	} {
		l := openWith(t, connection)
		_, err := l.Head(within(t, time.Second))
		if !errors.Is(err, eventlog.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
			continue
		}
		wantNoPassword(t, "the error", err.Error())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := openWith(t, "esdb://"+silent+"?tls=false").Head(ctx); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "does not answer") {
		t.Errorf("of a caller who has gone: %v", err)
	}
}

// newSilent is an address at which connections are taken, and nothing is said.
func newSilent(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lis.Close() })
	return lis.Addr().String()
}
