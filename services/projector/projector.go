// Package projector keeps the read models: it folds the event log into the tables that the query service answers from.
//
// All its work is done by package consumer, on the models of package readmodel.
package projector

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/daemon"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/readmodel"
	"github.com/purserhq/purser/internal/rpc"
)

// Config says where the service listens, as host:port, and where the read models are kept.
type Config struct {
	GRPCAddr, HTTPAddr string
	PostgresURL        string
	// MaxConns bounds the connections to Postgres; 0 leaves it to pool_max_conns of the URL or the driver's default.
	MaxConns int32
}

// New returns the service, which is ready once every model has caught up with the log. It fails only for a bad URL; a
// Postgres or an event store that is down is waited for.
func New(cfg Config, log *eventlog.Log, logger *slog.Logger, m *consumer.Metrics, calls *rpc.Metrics) (daemon.Service, error) {
	pc, err := pgxpool.ParseConfig(cfg.PostgresURL)
	if err != nil {
		return daemon.Service{}, fmt.Errorf("postgres url: %w", err)
	}
	pc.ConnConfig.RuntimeParams["application_name"] = "purser-projector"
	if cfg.MaxConns > 0 {
		pc.MaxConns = cfg.MaxConns
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), pc) // connects when first used
	if err != nil {
		return daemon.Service{}, fmt.Errorf("postgres pool: %w", err)
	}
	c := consumer.New(pool, log, "projector", eventschema.Categories(), readmodel.Models(), logger, m)
	return daemon.Service{
		Name: "projector", GRPC: rpc.NewServer("projector", logger, calls), GRPCAddr: cfg.GRPCAddr, HTTPAddr: cfg.HTTPAddr,
		Ready: c.Ready,
		Run:   []func(context.Context) error{c.Run},
		Close: pool.Close,
	}, nil
}
