// Package projector keeps the read models: it folds the event log into the tables that the query service answers from.
//
// All its work is done by package consumer, on the models of package readmodel.
package projector

import (
	"context"
	"log/slog"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/daemon"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/postgres"
	"github.com/purserhq/purser/internal/readmodel"
	"github.com/purserhq/purser/internal/rpc"
)

// Config says where the service listens, as host:port, and where the read models are kept.
type Config struct {
	GRPCAddr, HTTPAddr string
	PostgresURL        string
}

// New returns the service, which is ready once every model has caught up with the log. It fails only for a bad URL; a
// Postgres or an event store that is down is waited for.
func New(cfg Config, log *eventlog.Log, logger *slog.Logger, m *consumer.Metrics, calls *rpc.Metrics) (daemon.Service, error) {
	pool, err := postgres.Open(cfg.PostgresURL, "projector", 0)
	if err != nil {
		return daemon.Service{}, err
	}
	c := consumer.New(pool, log, "projector", eventschema.Categories(), readmodel.Models(), logger, m)
	return daemon.Service{
		Name: "projector", GRPC: rpc.NewServer("projector", logger, calls), GRPCAddr: cfg.GRPCAddr, HTTPAddr: cfg.HTTPAddr,
		Ready: c.Ready,
		Run:   []func(context.Context) error{c.Run},
		Close: pool.Close,
	}, nil
}
