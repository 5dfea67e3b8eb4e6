package readmodel

import (
	"context"
	"sync"
	"time"
)

const (
	// maxGathered bounds the keys of one statement.
	maxGathered = 256
	// maxPatience bounds a statement for a caller without a deadline.
	maxPatience = 30 * time.Second
)

// gathering reads rows by their keys. Who asks is served at once while few statements are under way; those who have to wait
// are served together, by one statement, which costs Postgres hardly more than that for a single row. A statement begins
// after all whom it serves have asked, so each sees what was there when it asked.
type gathering[R any] struct {
	read func(ctx context.Context, keys []string) ([]R, error)
	key  func(*R) string
	most int // statements at once

	mu       sync.Mutex
	waiting  []*asking[R]
	underWay int
}

// asking is a caller who waits. The answer may be read once done is closed.
type asking[R any] struct {
	ctx  context.Context
	key  string
	done chan struct{}

	row *R // nil: there is none
	err error
}

// one returns the row with a key, nil where there is none. It is shared, and not to be changed.
func (g *gathering[R]) one(ctx context.Context, key string) (*R, error) {
	r := &asking[R]{ctx: ctx, key: key, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, r)
	if g.underWay < g.most {
		g.underWay++
		go g.work()
	}
	g.mu.Unlock()
	select {
	case <-r.done:
		return r.row, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// work answers until nobody waits.
func (g *gathering[R]) work() {
	for {
		g.mu.Lock()
		n := min(len(g.waiting), maxGathered)
		together := g.waiting[:n:n]
		if g.waiting = g.waiting[n:]; n == 0 {
			g.underWay--
			g.waiting = nil
		}
		g.mu.Unlock()
		if n == 0 {
			return
		}
		g.answer(together)
	}
}

func (g *gathering[R]) answer(together []*asking[R]) {
	ctx, cancel := patienceOf(together)
	defer cancel()
	keys := make([]string, len(together))
	for i, r := range together {
		keys[i] = r.key
	}
	rows, err := g.read(ctx, keys)
	byKey := make(map[string]*R, len(rows))
	for i := range rows {
		byKey[g.key(&rows[i])] = &rows[i]
	}
	for _, r := range together {
		r.row, r.err = byKey[r.key], err
		close(r.done)
	}
}

// patienceOf is a context that ends when the last caller has given up.
func patienceOf[R any](together []*asking[R]) (context.Context, context.CancelFunc) {
	var last time.Time
	for _, r := range together {
		deadline, ok := r.ctx.Deadline()
		if !ok {
			deadline = time.Now().Add(maxPatience)
		}
		if deadline.After(last) {
			last = deadline
		}
	}
	return context.WithDeadline(context.WithoutCancel(together[0].ctx), last)
}
