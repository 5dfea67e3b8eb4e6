package write

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/domain/catalog"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventlog/memorylog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/secret"
	catalogv1 "github.com/purserhq/purser/proto/purser/catalog/v1"
)

const patience = 10 * time.Second

// follow has prices kept current for as long as the test runs, and waits until they are.
func follow(t *testing.T, p *prices, log interface {
	aggregate.Subscriber
	Head(ctx context.Context) (eventlog.Position, error)
}) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.run(ctx, log); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	eventually(t, "the subscription is up", func() bool { return p.isCurrent() })
}

func (p *prices) isCurrent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// countingLog counts the streams that are read.
type countingLog struct {
	*memorylog.Log
	mu    sync.Mutex
	reads int
}

func (l *countingLog) Read(ctx context.Context, stream string, from eventlog.Revision, max int) ([]eventlog.Recorded, error) {
	l.mu.Lock()
	l.reads++
	l.mu.Unlock()
	return l.Log.Read(ctx, stream, from, max)
}

func (l *countingLog) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reads
}

func TestPricesAreReadOnceAndAgainAfterAChange(t *testing.T) {
	log := &countingLog{Log: memorylog.New(eventschema.New())}
	s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	here := aggregate.New[catalog.State](log, eventschema.Product, s, time.Now)
	elsewhere := services{catalog: &catalogServer{products: aggregate.New[catalog.State](log, eventschema.Product, s, time.Now), prices: newPrices(nil)}}
	p := newPrices(here)
	elsewhere.create(t, "tea", eur(100))
	price := func() int64 {
		t.Helper()
		st, err := p.product(t.Context(), "tea")
		if err != nil {
			t.Fatal(err)
		}
		return st.Price.GetAmountMinor()
	}
	reads := func(n int) int {
		before := log.count()
		for range n {
			price()
		}
		return log.count() - before
	}

	if got := reads(5); got != 5 {
		t.Errorf("%d of 5 were read while nobody tells of changes", got)
	}
	follow(t, p, log)
	price()
	if got := reads(5); got != 0 {
		t.Errorf("a known product was read %d times", got)
	}
	elsewhere.changePrice(t, "tea", 120)
	eventually(t, "another replica's price is seen", func() bool { return price() == 120 })

	log.SetDown(true)
	eventually(t, "the outage is noticed", func() bool { return !p.isCurrent() })
	if _, err := p.product(t.Context(), "tea"); err == nil {
		t.Error("a price was answered from memory while nobody tells of changes")
	}
	log.SetDown(false)
	eventually(t, "the subscription is up again", p.isCurrent)
	if got := price(); got != 120 {
		t.Errorf("it costs %d", got)
	}
}

func TestAPriceReadBeforeAChangeIsNotKept(t *testing.T) {
	p := newPrices(nil)
	p.set(true)
	before := p.begin()
	p.forget("tea")
	p.add("tea", &catalog.State{Exists: true}, before)
	if _, known := p.known.Get("tea"); known {
		t.Error("it was kept")
	}
}

func TestACommandOfThisProcessIsSeenAtOnce(t *testing.T) {
	s := newServices(t)
	s.create(t, "tea", eur(100))
	for i := range int64(20) {
		if _, err := s.orders.prices.product(t.Context(), "tea"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.catalog.ChangePrice(t.Context(), &catalogv1.ChangePriceRequest{
			RequestId: uuid.NewString(), ProductId: "tea", Price: eur(200 + i),
		}); err != nil {
			t.Fatal(err)
		}
		st, err := s.orders.prices.product(t.Context(), "tea")
		if err != nil || st.Price.GetAmountMinor() != 200+i {
			t.Fatalf("it costs %v, %v, want %d", st.Price, err, 200+i)
		}
	}
}
