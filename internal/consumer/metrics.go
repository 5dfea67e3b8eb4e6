package consumer

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics measures the consumers of a process.
type Metrics struct {
	handling *prometheus.HistogramVec
	events   *prometheus.CounterVec
	batches  *prometheus.HistogramVec
	lag      *prometheus.GaugeVec
	position *prometheus.GaugeVec
	parked   *prometheus.GaugeVec
	failures *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		handling: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "purser_consumer_handling_seconds", Help: "Time to fold one event in memory.",
			Buckets: prometheus.ExponentialBuckets(1e-6, 4, 10),
		}, []string{"model", "event_type"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "purser_consumer_events_total", Help: "Events passed, of whatever category."}, []string{"model"}),
		batches: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "purser_consumer_batch_seconds", Help: "Time of one transaction, from its first statement to its commit.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}, []string{"model"}),
		lag:      prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "purser_consumer_lag_seconds", Help: "Age of the last event when it was committed; 0 once caught up."}, []string{"model"}),
		position: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "purser_consumer_position", Help: "Position of the log up to which everything is applied."}, []string{"model"}),
		parked:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "purser_consumer_parked_keys", Help: "Keys whose events can't be applied."}, []string{"model"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "purser_consumer_failures_total", Help: "Times that work was paused and begun again at the checkpoint."}, []string{"model"}),
	}
	reg.MustRegister(m.handling, m.events, m.batches, m.lag, m.position, m.parked, m.failures)
	return m
}

func (m *Metrics) observe(model string) func(eventType string, handle func()) {
	return func(eventType string, handle func()) {
		start := time.Now()
		handle()
		m.handling.WithLabelValues(model, eventType).Observe(time.Since(start).Seconds())
	}
}
