package saga

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
)

// Outcomes of an attempt at an item.
const (
	outcomeDone    = "done"
	outcomeRefused = "refused" // for a reason that the saga has no rule for
	outcomeFailed  = "failed"  // tried again later
)

type metrics struct {
	items   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	listed  *prometheus.GaugeVec
	oldest  *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		items: f.NewCounterVec(prometheus.CounterOpts{
			Name: "purser_saga_attempts_total",
			Help: "Attempts at items of the to-do list, by step and outcome.",
		}, []string{"step", "outcome"}),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "purser_saga_attempt_seconds",
			Help:    "Time that an attempt took, by step.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}, []string{"step"}),
		listed: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "purser_saga_todo_items",
			Help: "Items on the to-do list, by step.",
		}, []string{"step"}),
		oldest: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "purser_saga_todo_oldest_seconds",
			Help: "Age of the oldest item on the to-do list, by step; 0 where there is none.",
		}, []string{"step"}),
	}
}

func (m *metrics) attempted(step, outcome string, took time.Duration) {
	m.items.WithLabelValues(step, outcome).Inc()
	m.seconds.WithLabelValues(step).Observe(took.Seconds())
}

func (m *metrics) measured(backlogs []backlog, now time.Time) {
	for number := range fulfillmentevent.Step_name {
		if number != 0 {
			step := stepName(fulfillmentevent.Step(number))
			m.listed.WithLabelValues(step).Set(0)
			m.oldest.WithLabelValues(step).Set(0)
		}
	}
	for _, b := range backlogs {
		m.listed.WithLabelValues(b.Step).Set(float64(b.Items))
		m.oldest.WithLabelValues(b.Step).Set(max(0, now.Sub(b.Oldest).Seconds()))
	}
}
