package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/purserhq/purser/internal/localpostgres"
	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	"github.com/purserhq/purser/services/eventstore"

	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestStateSurvivesARestart(t *testing.T) {
	i := newInstance(t)
	product := i.stocked(t, 5)
	placed, err := i.orders.PlaceOrder(t.Context(), orderOf(product, 1, "pm_card_visa"))
	if err != nil {
		t.Fatal(err)
	}
	want := i.reaches(t, placed.GetOrderId(), typev1.OrderState_ORDER_STATE_CONFIRMED)
	i.stop()
	i.start()
	eventually(t, settle, func() error {
		got, err := i.get(t.Context(), placed.GetOrderId(), "")
		if err == nil && got.String() != want.String() {
			t.Fatalf("before %v, after %v", want, got)
		}
		return err
	})
}

func TestAPortInUseIsSaidInOneSentence(t *testing.T) {
	offset := freeOffset(t)
	addr, _ := queryPorts.offset(offset).on(loopback)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := purser(t.Context(), "dev", "--data-dir", pgtest.Dir(t), "--port-offset", fmt.Sprint(offset), "--log-level", "error")
	out, err := cmd.CombinedOutput()
	if err == nil || strings.Count(strings.TrimSpace(string(out)), "\n") != 0 || !strings.Contains(string(out), addr) || !strings.Contains(string(out), "query") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestUnknownEnvironmentIsAWarningOnly(t *testing.T) {
	t.Setenv("PURSER_WRITE_PORT", "tcp://10.0.0.1:50051")
	i := newInstance(t)
	if log := i.stderr.String(); !strings.Contains(log, "PURSER_WRITE_PORT") {
		t.Errorf("no warning in %s", log)
	}
}

func TestMetricsCountCommandsAndEvents(t *testing.T) {
	i := newInstance(t)
	placed, err := i.orders.PlaceOrder(t.Context(), orderOf(i.stocked(t, 1), 1, "pm_card_visa"))
	if err != nil {
		t.Fatal(err)
	}
	i.reaches(t, placed.GetOrderId(), typev1.OrderState_ORDER_STATE_CONFIRMED)
	for name, c := range map[string]struct {
		ports ports
		want  []string
	}{
		"write": {writePorts, []string{`PlaceOrder`, `ReserveStock`}},
		"projector": {projectorPorts, []string{
			`consumer_handling_seconds_count\{[^}]*OrderConfirmed[^}]*\} [1-9]`, `consumer_lag`,
		}},
		"eventstore": {eventstorePorts, []string{`eventstore_`}},
	} {
		resp, err := http.Get("http://" + i.httpAddr(c.ports) + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if !regexp.MustCompile(want).Match(body) {
				t.Errorf("/metrics of %s has no %s", name, want)
			}
		}
	}
}

// The event store and Postgres are stopped and started again under a running Purser.
func TestOutagesOfTheStoresPauseTheWork(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole Purser")
	}
	dir := pgtest.Dir(t)
	store := startStore(t, dir, "127.0.0.1:0")
	postgres, err := localpostgres.Start(t.Context(), filepath.Join(dir, "postgres"), quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopPostgres(t, postgres) })
	i := newInstance(t, "--eventstore-url", "esdb://"+store.addr+"?tls=false", "--postgres-url", postgres.URL())

	const down = 3 * time.Second
	product := i.stocked(t, 40)
	placed := make(chan []string)
	go func() { placed <- i.placeMany(t, t.Context(), product, 20) }()
	store.stop(t)
	time.Sleep(down)
	startStore(t, dir, store.addr)
	first := <-placed

	go func() { placed <- i.placeMany(t, t.Context(), product, 20) }()
	stopPostgres(t, postgres)
	time.Sleep(down)
	if postgres, err = localpostgres.Start(t.Context(), filepath.Join(dir, "postgres"), quiet()); err != nil {
		t.Fatal(err)
	}
	i.wantSold(t, product, append(first, <-placed...), 40)
}

type runningStore struct {
	addr string
	stop func(t *testing.T)
}

func startStore(t *testing.T, dir, addr string) runningStore {
	t.Helper()
	s, err := eventstore.Open(eventstore.Config{Dir: filepath.Join(dir, "eventstore"), Addr: addr}, quiet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	stopped := false
	r := runningStore{addr: s.Addr(), stop: func(t *testing.T) {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}}
	t.Cleanup(func() { r.stop(t) })
	return r
}

func stopPostgres(t *testing.T, p *localpostgres.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), stopTimeout)
	defer cancel()
	if err := p.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func TestReferenceIsFresh(t *testing.T) {
	var b strings.Builder
	if err := writeReference(&b, rootCommand()); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(repositoryRoot(t), "docs", "reference", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(file) {
		t.Error("docs/reference/configuration.md is not what `make docs` writes")
	}
}
