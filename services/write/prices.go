package write

import (
	"context"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/domain/catalog"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
)

// cachedProducts bounds the products kept in memory.
const cachedProducts = 10_000

// prices is the catalogue as orders are priced from it. It is read through: a product is folded from the log when it is
// first asked for, and again after an event of it. A subscription tells of those, and a product is kept only while it is
// up; package eventlog notices within seconds when it has stalled. So a price is the one of a moment ago, and an order
// keeps the price it was placed at.
type prices struct {
	products *aggregate.Handler[catalog.State]

	mu      sync.Mutex
	known   *lru.Cache[string, *catalog.State]
	current bool   // the subscription is up
	changes uint64 // so far: what was read before a change is not kept
}

func newPrices(products *aggregate.Handler[catalog.State]) *prices {
	known, err := lru.New[string, *catalog.State](cachedProducts)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &prices{products: products, known: known}
}

// product returns a product, which must not be changed. One that can't be ordered is never answered from memory.
func (p *prices) product(ctx context.Context, id string) (*catalog.State, error) {
	if known, ok := p.known.Get(id); ok {
		return known, nil
	}
	before := p.begin()
	st, _, err := p.products.Load(ctx, id)
	if err == nil && st.Exists && !st.Discontinued {
		p.add(id, st, before)
	}
	return st, err
}

func (p *prices) begin() (changes uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changes
}

func (p *prices) add(id string, st *catalog.State, before uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current && p.changes == before {
		p.known.Add(id, st)
	}
}

// forget has a product read again. Commands of this process say so themselves, so that they are seen at once.
func (p *prices) forget(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changes++
	p.known.Remove(id)
}

// follow keeps what is known current until ctx ends.
func (p *prices) follow(ctx context.Context, log aggregate.Subscriber, from eventlog.Position) error {
	return log.Subscribe(ctx, []string{eventschema.Product}, from, func(_ context.Context, d eventlog.Delivery) error {
		switch {
		case d.Event != nil:
			_, id, _ := eventlog.SplitStream(d.Event.Stream)
			p.forget(id)
		case d.CaughtUp:
			p.set(true)
		case d.Interrupted != nil:
			p.set(false)
		}
		return nil
	})
}

// set notes whether the subscription is up. What was known before it was is forgotten.
func (p *prices) set(current bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current = current
	p.changes++
	p.known.Purge()
}

// run follows the catalogue, from its end on, until ctx ends.
func (p *prices) run(ctx context.Context, log interface {
	aggregate.Subscriber
	Head(ctx context.Context) (eventlog.Position, error)
}) error {
	head, err := log.Head(ctx)
	if err == nil {
		err = p.follow(ctx, log, head)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}
