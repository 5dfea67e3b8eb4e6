package eventlog

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	appends      *prometheus.HistogramVec
	clients      prometheus.Counter
	resubscribed prometheus.Counter
}

// newMetrics registers the metrics of a process's logs, which share them; reg may be nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		appends: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "purser_eventlog_append_seconds", Help: "Time to append, all attempts together, by outcome.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}, []string{"outcome"}),
		clients:      prometheus.NewCounter(prometheus.CounterOpts{Name: "purser_eventlog_clients_replaced_total", Help: "Clients of the event store that failed and were replaced."}),
		resubscribed: prometheus.NewCounter(prometheus.CounterOpts{Name: "purser_eventlog_resubscriptions_total", Help: "Subscriptions that ended and were taken up again."}),
	}
	if reg == nil {
		return m
	}
	m.appends = shared(reg, m.appends)
	m.clients = shared(reg, m.clients)
	m.resubscribed = shared(reg, m.resubscribed)
	return m
}

// shared registers a collector, or returns the one that was registered before.
func shared[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	var already prometheus.AlreadyRegisteredError
	if errors.As(reg.Register(c), &already) {
		return already.ExistingCollector.(C)
	}
	return c
}

func (m *metrics) observeAppend(err error, took time.Duration) {
	outcome := "ok"
	var conflict *ConflictError
	switch {
	case err == nil:
	case errors.As(err, &conflict):
		outcome = "conflict"
	case errors.Is(err, ErrUnavailable):
		outcome = "unavailable"
	default:
		outcome = "refused"
	}
	m.appends.WithLabelValues(outcome).Observe(took.Seconds())
}
