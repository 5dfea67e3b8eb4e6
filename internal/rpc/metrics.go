package rpc

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

// Metrics counts and times the calls that a process serves and makes.
type Metrics struct {
	served, made *prometheus.HistogramVec
}

// callBuckets go from half a millisecond to half a minute, in seconds.
var callBuckets = prometheus.ExponentialBuckets(0.0005, 2, 17)

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		served: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "purser_rpc_server_seconds", Help: "Time to serve a call, by its outcome; code OK has no reason.", Buckets: callBuckets,
		}, []string{"rpc_service", "rpc_method", "code", "reason"}),
		made: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "purser_rpc_client_seconds", Help: "Time that a call to another service took, by its outcome.", Buckets: callBuckets,
		}, []string{"rpc_service", "rpc_method", "code"}),
	}
	reg.MustRegister(m.served, m.made)
	return m
}

func (m *Metrics) server(method string, code codes.Code, reason string, took time.Duration) {
	service, name := split(method)
	if code == codes.Unimplemented {
		service, name = "unknown", "unknown" // callers can make up any number of names
	}
	m.served.WithLabelValues(service, name, code.String(), reason).Observe(took.Seconds())
}

func (m *Metrics) client(method string, code codes.Code, took time.Duration) {
	service, name := split(method)
	m.made.WithLabelValues(service, name, code.String()).Observe(took.Seconds())
}

// split takes "/package.Service/Method" apart.
func split(method string) (service, name string) {
	service, name, _ = strings.Cut(strings.TrimPrefix(method, "/"), "/")
	return service, name
}
