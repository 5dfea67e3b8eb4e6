package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/purserhq/purser/internal/localpostgres"
	"github.com/purserhq/purser/internal/localpostgres/pgtest"
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

// What a process that was killed held is not waited for: here it would be for an hour, and otherwise for some seconds.
func TestAKilledDevIsReplacedAtOnce(t *testing.T) {
	i := newInstance(t)
	product := i.stocked(t, 5)
	i.kill()
	url, err := localpostgres.Find(filepath.Join(i.dir, "postgres")) // which runs on
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if tag, err := pool.Exec(t.Context(), `UPDATE consumer.leases SET expires_at = now() + interval '1 hour' WHERE member IS NOT NULL`); err != nil || tag.RowsAffected() == 0 {
		t.Fatalf("%v, %v", tag, err)
	}
	i.start()
	i.clients = i.dial()
	placed, err := i.orders.PlaceOrder(t.Context(), orderOf(product, 1, "pm_card_visa"))
	if err != nil {
		t.Fatal(err)
	}
	i.reaches(t, placed.GetOrderId(), typev1.OrderState_ORDER_STATE_CONFIRMED)
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

func TestTheEmbeddedStoreSaysThatItIsForOneMachine(t *testing.T) {
	var log bytes.Buffer
	s, err := openEventstore(newProcess(slog.New(slog.NewTextHandler(&log, nil))), t.TempDir(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "for one machine") {
		t.Errorf("it says only %s", &log)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := s.Serve(ended); err != nil { // closes it
		t.Error(err)
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
