package eventstore

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/purserhq/purser/services/eventstore/storage"
)

type metrics struct {
	appends, events, bytes prometheus.Counter
	scavenged, damage      prometheus.Counter
	syncSeconds, batch     prometheus.Histogram
	subscriptions          prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		appends: f.NewCounter(prometheus.CounterOpts{
			Name: "purser_eventstore_appends_total",
			Help: "Appends and deletions answered, repeats and conflicts included.",
		}),
		events: f.NewCounter(prometheus.CounterOpts{
			Name: "purser_eventstore_events_total",
			Help: "Events written.",
		}),
		bytes: f.NewCounter(prometheus.CounterOpts{
			Name: "purser_eventstore_written_bytes_total",
			Help: "Bytes of events and index written to the log, before compression.",
		}),
		scavenged: f.NewCounter(prometheus.CounterOpts{
			Name: "purser_eventstore_scavenged_events_total",
			Help: "Events deleted for good because their streams no longer show them.",
		}),
		damage: f.NewCounter(prometheus.CounterOpts{
			Name: "purser_eventstore_damage_total",
			Help: "Files of the log found damaged by a read; each once after a start.",
		}),
		syncSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "purser_eventstore_sync_seconds",
			Help:    "Time to write and sync a batch of appends.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 14),
		}),
		batch: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "purser_eventstore_batch_appends",
			Help:    "Appends that shared one sync.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}),
		subscriptions: f.NewGauge(prometheus.GaugeOpts{
			Name: "purser_eventstore_subscriptions",
			Help: "Open subscriptions.",
		}),
	}
}

func (m *metrics) committed(c storage.Commit) {
	m.appends.Add(float64(c.Appends))
	m.scavenged.Add(float64(c.Scavenged))
	if c.Events == 0 {
		return
	}
	m.events.Add(float64(c.Events))
	m.bytes.Add(float64(c.Bytes))
	m.syncSeconds.Observe(c.Sync.Seconds())
	m.batch.Observe(float64(c.Appends))
}

func (m *metrics) damaged(string) { m.damage.Inc() }
