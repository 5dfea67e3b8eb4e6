package consumer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Whoever shows rows to somebody who waits for a change is told by Postgres's own NOTIFY which rows were written. It is a
// hint, sent after the commit: what is lost when a process dies, or a connection, is found by looking at the rows now and
// then, as [Fold.Changes] demands.

const (
	channel = "purser_changes"
	// maxPayload is the most bytes that Postgres takes, less one.
	maxPayload = 7999
	// maxKeys is for how many keys of a model each is named; where more have changed, any may have.
	maxKeys = 1000
	// notifyPause is the least time between two notifications: each takes a lock for all of the server's databases, so
	// what happens meanwhile goes together.
	notifyPause   = 50 * time.Millisecond
	notifyTimeout = 5 * time.Second
	// listenPing is how often a connection that says nothing is asked whether it is still there.
	listenPing = 5 * time.Second
)

// change is what one notification says: that rows of these keys were written, or of any where it names none.
type change struct {
	Rows string   `json:"rows"` // of which version of which model, in whatever build
	Keys []string `json:"keys,omitempty"`
}

// rows names the rows of a version of a model.
func (m Model) rows() string { return rowsOf(m.name, m.version) }

func rowsOf(model string, version int) string { return fmt.Sprintf("%s v%d", model, version) }

// notifier tells listeners which rows a process has written.
type notifier struct {
	pool   *pgxpool.Pool
	logger *slog.Logger
	wake   chan struct{}

	mu      sync.Mutex
	pending map[string]map[string]struct{} // keys by what the rows are; nil: any
}

func newNotifier(pool *pgxpool.Pool, logger *slog.Logger) *notifier {
	return &notifier{pool: pool, logger: logger, wake: make(chan struct{}, 1), pending: map[string]map[string]struct{}{}}
}

// changed notes that rows were written and committed. It never waits.
func (n *notifier) changed(rows string, keys ...string) {
	if len(keys) == 0 {
		return
	}
	n.mu.Lock()
	all, known := n.pending[rows]
	if !known {
		all = map[string]struct{}{}
	}
	if all != nil {
		for _, key := range keys {
			all[key] = struct{}{}
		}
		if len(all) > maxKeys {
			all = nil
		}
	}
	n.pending[rows] = all
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// keys are those whose rows a batch may have written.
func (b *batch) keys() []string {
	keys := make([]string, len(b.events))
	for i, e := range b.events {
		keys[i] = e.key
	}
	return keys
}

// run sends what has changed until ctx ends. One that can't be sent is lost, which is all that may become of it.
func (n *notifier) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.wake:
		}
		if err := n.send(ctx); err != nil && ctx.Err() == nil {
			n.logger.Warn("those who watch are not told of changes, and find them later", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(notifyPause):
		}
	}
}

func (n *notifier) send(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, notifyTimeout)
	defer cancel()
	_, err := n.pool.Exec(ctx, "SELECT pg_notify($1, p) FROM unnest($2::text[]) AS p", channel, n.take())
	return err
}

// take empties what is pending into payloads.
func (n *notifier) take() []string {
	n.mu.Lock()
	pending := n.pending
	n.pending = make(map[string]map[string]struct{}, len(pending))
	n.mu.Unlock()
	var all []string
	for rows, keys := range pending {
		all = append(all, payloads(change{rows, slices.Sorted(maps.Keys(keys))})...)
	}
	return all
}

// payloads are a change in as many parts as it takes.
func payloads(c change) []string {
	text, err := json.Marshal(c)
	switch half := len(c.Keys) / 2; {
	case err == nil && len(text) <= maxPayload:
		return []string{string(text)}
	case half > 0:
		return append(payloads(change{c.Rows, c.Keys[:half]}), payloads(change{c.Rows, c.Keys[half:]})...)
	}
	return payloads(change{Rows: c.Rows}) // a key that is longer than any of ours
}

// Changes listens on a connection of its own, and calls changed with the keys of the rows that were written; without
// any, where any row may have been: at first, as nothing is known of the time before, and under a backlog. It
// returns when ctx ends or the connection is lost, and is then to be called again on another one. A notification may also
// be lost alone, so one who has not heard of a row for long must look at it all the same.
func (f *Fold[R]) Changes(ctx context.Context, conn *pgx.Conn, changed func(keys ...string)) error {
	listenCtx, cancel := context.WithTimeout(ctx, notifyTimeout)
	_, err := conn.Exec(listenCtx, "LISTEN "+channel)
	cancel()
	if err != nil {
		return fmt.Errorf("listen for changes of %s: %w", f.Name, err)
	}
	changed()
	for {
		n, err := notification(ctx, conn)
		if err != nil {
			return fmt.Errorf("wait for changes of %s: %w", f.Name, err)
		}
		var c change
		if err := json.Unmarshal([]byte(n.Payload), &c); err != nil { // others may use the channel
			continue
		}
		if c.Rows == rowsOf(f.Name, f.Version) {
			changed(c.Keys...)
		}
	}
}

// notification waits for the next one, and makes sure meanwhile that the connection has not died unheard.
func notification(ctx context.Context, conn *pgx.Conn) (*pgconn.Notification, error) {
	for {
		waitCtx, cancel := context.WithTimeout(ctx, listenPing)
		n, err := conn.WaitForNotification(waitCtx)
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return n, err
		}
		pingCtx, cancel := context.WithTimeout(ctx, listenPing)
		err = conn.Ping(pingCtx)
		cancel()
		if err != nil {
			return nil, err
		}
	}
}
