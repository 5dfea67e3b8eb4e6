package consumer_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/fault"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

func (w *world) status(c *consumer.Consumer, model string) consumer.Status {
	w.t.Helper()
	s, err := c.Status(w.t.Context(), model)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func TestStatusTellsHowAModelIs(t *testing.T) {
	w := newWorld(t)
	asked := w.consumer(w.models()...) // another process, that runs nothing
	if s := w.status(asked, "accounts"); s.State != consumer.Stopped || s.Position != 0 || s.Parked != 0 {
		t.Errorf("before anything ran: %+v", s)
	}
	_, stop := w.run(w.models()...)
	w.log.append("a-good", 1)
	last := w.log.append("a-bad", -1)
	w.settled()
	w.eventually(func() bool { return w.status(asked, "accounts").State == consumer.Live })
	s := w.status(asked, "accounts")
	if s.Name != "accounts" || s.Version != 1 || s.Build != "accounts_v1_b1" || !slices.Equal(s.Categories, []string{"a", "b"}) ||
		!slices.Equal(s.Derived, []string{"brackets", "wishes"}) || s.Position != last || s.Head != last || s.Parked != 1 ||
		time.Since(s.OldestParked) > time.Minute || !s.PausedAt.IsZero() || s.Lag != 0 {
		t.Errorf("%+v", s)
	}
	all, err := asked.Statuses(t.Context())
	if err != nil || len(all) != 2 || all[1].Name != "entries" || all[1].Parked != 0 || all[1].Derived != nil {
		t.Errorf("%+v, %v", all, err)
	}
	w.log.SetDown(true)
	w.eventually(func() bool {
		s := w.status(asked, "accounts")
		return s.State == consumer.CatchingUp && s.Head == 0 && s.Position == last && s.Lag > 0
	})
	w.log.SetDown(false)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.eventually(func() bool { s := w.status(asked, "accounts"); return s.State == consumer.Stopped && s.Lag > 0 })
}

func TestWhatIsNotRunHereIsSaid(t *testing.T) {
	w := newWorld(t)
	_, stop := w.run(w.models()...)
	w.settled()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	asked := w.consumer(w.models()[:1]...)
	for name, want := range map[string]string{
		"entries":  `projection "entries" is not run by this projector, which runs accounts`,
		"brackets": `"brackets" is no projection of its own, but kept with projection "accounts"`,
	} {
		if _, err := asked.Status(t.Context(), name); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_PROJECTION_NOT_FOUND) || fault.Of(err).Message != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	for _, model := range []string{"", "accounts"} {
		if b, err := asked.Build(t.Context(), model, "accounts_v1_b1"); err != nil || !b.Live {
			t.Errorf("of %q: %+v, %v", model, b, err)
		}
	}
	for model, want := range map[string]string{
		"":         `no projection that this projector runs has a build "entries_v1_b1"; it runs accounts`,
		"accounts": `projection "accounts" has no build "entries_v1_b1"`,
	} {
		if _, err := asked.Build(t.Context(), model, "entries_v1_b1"); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_BUILD_NOT_FOUND) || fault.Of(err).Message != want {
			t.Errorf("of %q: %v, want %s", model, err, want)
		}
	}
}

func TestAPausedModelRestsAcrossRestarts(t *testing.T) {
	w := newWorld(t)
	c, stop := w.run(w.models()...)
	at := w.log.append("a-k", 1)
	w.settled()
	asked := w.consumer(w.models()...)
	for range 2 {
		if s, err := asked.Pause(t.Context(), "accounts"); err != nil || s.State != consumer.Paused || time.Since(s.PausedAt) > time.Minute {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	rests := func(c *consumer.Consumer) {
		t.Helper()
		w.eventually(func() bool { return c.Ready(t.Context()) != nil && c.ReadyOrPaused(t.Context()) == nil })
		w.await("entries", "", w.log.append("a-k", 2))
		short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if err := w.reached(short, w.accounts, "k", w.log.head()); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_PROJECTION_LAG) {
			t.Errorf("got %v", err)
		}
		if s := w.status(asked, "accounts"); s.State != consumer.Paused || s.Position != at {
			t.Errorf("%+v", s)
		}
	}
	rests(c)
	if err := asked.Unpark(t.Context(), "accounts", "k"); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_PROJECTION_PAUSED) {
		t.Errorf("got %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	c, _ = w.run(w.models()...)
	rests(c)
	for range 2 {
		if s, err := asked.Resume(t.Context(), "accounts"); err != nil || s.State == consumer.Paused || !s.PausedAt.IsZero() {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	w.settled()
	w.eventually(func() bool { return c.Ready(t.Context()) == nil && w.status(asked, "accounts").State == consumer.Live })
	w.check()
	w.audited(0)
}

// The query by which the operations guide has one alert finds what is paused, and what nobody runs.
func TestTheDocumentedQueryFindsWhatNobodyRuns(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n### What nobody runs\n")
	_, sql, _ := strings.Cut(section, "```sql\n")
	sql, _, _ = strings.Cut(sql, ";\n```")
	w := newWorld(t)
	type row struct {
		Model               string
		Version, Partitions int
		Paused              bool
	}
	finds := func(want ...row) {
		t.Helper()
		w.eventually(func() bool {
			got := query[row](w, "SELECT model, version, partitions, paused_at IS NOT NULL AS paused FROM ("+sql+") AS found ORDER BY model")
			return slices.Equal(got, want)
		})
	}
	_, stopAccounts := w.run(w.models()[0])
	_, stopEntries := w.run(w.models()[1])
	w.settled()
	finds()
	if err := stopEntries(); err != nil {
		t.Fatal(err)
	}
	finds(row{"entries", 1, 0, false})
	if _, err := w.consumer(w.models()...).Pause(t.Context(), "accounts"); err != nil {
		t.Fatal(err)
	}
	finds(row{"accounts", 1, 16, true}, row{"entries", 1, 0, false})
	if err := stopAccounts(); err != nil {
		t.Fatal(err)
	}
	finds(row{"accounts", 1, 0, true}, row{"entries", 1, 0, false})
}
