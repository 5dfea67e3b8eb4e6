package consumer

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/purserhq/purser/internal/localpostgres/pgtest"
)

type watchedRow struct {
	ID string `db:"id,key"`
}

// heard is what one who listens hears: keys, or nil for any.
type heard chan []string

// next returns what is heard next, which must not be long in coming.
func (h heard) next(t *testing.T) []string {
	t.Helper()
	select {
	case keys := <-h:
		return keys
	case <-time.After(20 * time.Second):
		t.Fatal("nothing is heard")
		return nil
	}
}

// notifying is a notifier that runs, and one who listens for the changes of a fold.
func notifying(t *testing.T) (*notifier, string, heard) {
	t.Helper()
	url := pgtest.Database(t)
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	n, f, h := newNotifier(pool, slog.New(slog.DiscardHandler)), &Fold[watchedRow]{Name: "rows", Version: 3}, make(heard, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = n.run(ctx) })
	running.Go(func() {
		if err := f.Changes(ctx, conn, func(keys ...string) { h <- keys }); ctx.Err() == nil {
			t.Errorf("listening ended: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		_ = conn.Close(context.Background())
	})
	if keys := h.next(t); keys != nil {
		t.Fatalf("at first %v are said to have changed, want any", keys)
	}
	return n, rowsOf(f.Name, f.Version), h
}

// One who listens hears of what was written of its model, and of nothing else.
func TestChangesAreHeard(t *testing.T) {
	n, rows, h := notifying(t)
	n.changed("rows_of_others", "9")
	n.changed(rows) // a batch without events
	if _, err := n.pool.Exec(t.Context(), "NOTIFY "+channel+", 'hello'"); err != nil {
		t.Fatal(err)
	}
	n.changed(rows, "1", "2", "1")
	if keys := h.next(t); !slices.Equal(keys, []string{"1", "2"}) {
		t.Errorf("heard %v, want 1 and 2", keys)
	}
	n.changed(rows, "3")
	if keys := h.next(t); !slices.Equal(keys, []string{"3"}) {
		t.Errorf("heard %v, want 3", keys)
	}
}

// Names are told in as many notifications as it takes; of too many, or one that is too long, that any may have changed.
func TestManyChanges(t *testing.T) {
	n, rows, h := notifying(t)
	var want []string
	for i := range maxKeys {
		want = append(want, fmt.Sprintf("%064d", i))
	}
	n.changed(rows, want...)
	var got []string
	for len(got) < len(want) {
		keys := h.next(t)
		if keys == nil {
			t.Fatalf("after %d of %d keys any may have changed", len(got), len(want))
		}
		got = append(got, keys...)
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("heard of %d keys, not of those that have changed", len(got))
	}
	n.changed(rows, append(want, "one more")...)
	if keys := h.next(t); keys != nil {
		t.Errorf("heard of %d keys, want any", len(keys))
	}
	n.changed(rows, strings.Repeat(`"`, maxPayload))
	if keys := h.next(t); keys != nil {
		t.Errorf("heard of %d keys, want any", len(keys))
	}
}

// What changes in quick succession is told together.
func TestChangesAreToldTogether(t *testing.T) {
	n, rows, h := notifying(t)
	began := time.Now()
	for i := range 200 {
		n.changed(rows, fmt.Sprintf("%03d", i))
		time.Sleep(time.Millisecond)
	}
	var got []string
	for told := 1; ; told++ {
		if got = append(got, h.next(t)...); len(got) == 200 {
			if most := int(time.Since(began)/notifyPause) + 1; told > most {
				t.Errorf("told %d times, want at most %d", told, most)
			}
			return
		}
	}
}

// Without Postgres nobody is told, and nobody waits.
func TestChangesWithoutPostgres(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), "postgres://purser@127.0.0.1:1/purser")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	n := newNotifier(pool, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithTimeout(t.Context(), 3*notifyPause)
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() {
		if err := n.run(ctx); err != nil {
			t.Errorf("ended by %v", err)
		}
	})
	for ctx.Err() == nil {
		n.changed("rows", "1")
		time.Sleep(time.Millisecond)
	}
	running.Wait()
}
