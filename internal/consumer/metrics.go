package consumer

import (
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics measures the consumers of a process.
type Metrics struct {
	handling *prometheus.HistogramVec
	delay    *prometheus.HistogramVec
	events   *prometheus.CounterVec
	unknown  *prometheus.CounterVec
	unkeyed  *prometheus.CounterVec
	batches  *prometheus.HistogramVec
	ages     *ageCollector
	position *prometheus.GaugeVec
	failures *prometheus.CounterVec
	foreign  foreignTypes
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		handling: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "purser_consumer_handling_seconds", Help: "Time to fold one event in memory.",
			Buckets: prometheus.ExponentialBuckets(1e-6, 4, 10),
		}, []string{"model", "event_type"}),
		delay: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "purser_consumer_delay_seconds", Help: "Time from an event's occurrence to the commit of what it changed; in a rebuild that is its age.",
			Buckets: prometheus.ExponentialBuckets(0.002, 2, 20),
		}, []string{"model", "event_type"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "purser_consumer_events_total", Help: "Events of the process's partitions passed, of whatever category."}, []string{"model"}),
		unknown: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "purser_consumer_unknown_events_total", Help: "Events passed over because this build does not know their type.",
		}, []string{"model", "event_type"}),
		unkeyed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "purser_consumer_unkeyed_events_total", Help: "Events passed over because their stream's name has no key that can be stored.",
		}, []string{"model"}),
		batches: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "purser_consumer_batch_seconds", Help: "Time of one transaction, from its first statement to its commit.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}, []string{"model"}),
		ages: &ageCollector{
			lag: prometheus.NewDesc(
				"purser_consumer_lag_seconds", "For how long the model has lacked something that the log may hold; 0 while it lacks nothing.", []string{"model"}, nil),
			keys: prometheus.NewDesc(
				"purser_consumer_parked_keys", "Keys whose events can't be applied, in the partitions that this process runs.", []string{"model"}, nil),
			oldest: prometheus.NewDesc(
				"purser_consumer_parked_oldest_seconds", "For how long the key that was parked first has been; 0 where none is.", []string{"model"}, nil),
			partitions: prometheus.NewDesc(
				"purser_consumer_partitions", "Partitions of the model that this process runs.", []string{"model"}, nil),
		},
		position: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "purser_consumer_position", Help: "Position of the log up to which everything is applied."}, []string{"model"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "purser_consumer_failures_total", Help: "Times that work was paused and begun again at the checkpoint."}, []string{"model"}),
	}
	reg.MustRegister(m.handling, m.delay, m.events, m.unknown, m.unkeyed, m.batches, m.ages, m.position, m.failures)
	return m
}

func (m *Metrics) observe(model string) func(eventType string, handle func()) {
	return func(eventType string, handle func()) {
		start := time.Now()
		handle()
		m.handling.WithLabelValues(model, eventType).Observe(time.Since(start).Seconds())
	}
}

// committed notes a batch.
func (m *Metrics) committed(model string, b *batch) {
	now := time.Now()
	passed := 0
	for _, n := range b.passed {
		passed += n
	}
	for _, e := range b.events {
		if len(e.Messages) == 0 { // of an unknown type, or one that can't be read, so that nobody knows of when it is
			continue
		}
		m.delay.WithLabelValues(model, e.Type).Observe(now.Sub(e.Meta.OccurredAt).Seconds())
	}
	for _, eventType := range b.unknown {
		m.unknown.WithLabelValues(model, m.foreign.label(eventType)).Inc()
	}
	m.unkeyed.WithLabelValues(model).Add(float64(b.unkeyed))
	m.events.WithLabelValues(model).Add(float64(passed))
	m.position.WithLabelValues(model).Set(float64(b.end))
}

const (
	// maxForeignTypes and maxForeignName bound what names that are not ours can make of a label.
	maxForeignTypes = 20
	maxForeignName  = 64
	otherTypes      = "other"
)

// foreignTypes are the unknown event types that a metric has shown by their names: the first ones that were met.
type foreignTypes struct {
	mu    sync.Mutex
	shown map[string]bool
}

// label is an event type as a metric shows it.
func (f *foreignTypes) label(eventType string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.shown[eventType]:
		return eventType
	case len(f.shown) == maxForeignTypes, len(eventType) > maxForeignName, !utf8.ValidString(eventType):
		return otherTypes
	case f.shown == nil:
		f.shown = map[string]bool{}
	}
	f.shown[eventType] = true
	return eventType
}

// watch shows what changes of a consumer's models also while nothing happens, and so is asked for when it is collected.
func (m *Metrics) watch(c *Consumer) {
	m.ages.mu.Lock()
	defer m.ages.mu.Unlock()
	m.ages.consumers = append(m.ages.consumers, c)
}

type ageCollector struct {
	lag, keys, oldest, partitions *prometheus.Desc

	mu        sync.Mutex
	consumers []*Consumer
}

var _ prometheus.Collector = (*ageCollector)(nil)

// Describe implements prometheus.Collector.
func (a *ageCollector) Describe(d chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{a.lag, a.keys, a.oldest, a.partitions} {
		d <- desc
	}
}

// Collect implements prometheus.Collector.
func (a *ageCollector) Collect(values chan<- prometheus.Metric) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	var all []prometheus.Metric
	for _, c := range a.consumers {
		c.mu.Lock() // so that readers are sent to another build before or after, and not meanwhile
		for _, r := range c.runners {
			_, behind := r.state(now)
			keys, oldest := r.parked(now)
			for desc, value := range map[*prometheus.Desc]float64{
				a.lag: behind.Seconds(), a.keys: float64(keys), a.oldest: oldest.Seconds(), a.partitions: float64(r.owned()),
			} {
				all = append(all, prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, r.label()))
			}
		}
		c.mu.Unlock()
	}
	for _, m := range all {
		values <- m
	}
}
