// Package projector keeps the read models: it folds the event log into the tables that the query service answers from.
//
// All its work is done by package consumer, on the models of package readmodel. Any replica answers operators alike: what
// it is asked it reads from Postgres, and what it is told it writes there, for whichever replica runs the read model.
package projector

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/daemon"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/postgres"
	"github.com/purserhq/purser/internal/readmodel"
	"github.com/purserhq/purser/internal/rpc"
	projectionv1 "github.com/purserhq/purser/proto/purser/projection/v1"
)

// Config says where the service listens, as host:port, where the read models are kept, and which of them it runs.
type Config struct {
	GRPCAddr, HTTPAddr string
	PostgresURL        string
	// Models are names of those of [readmodel.Models] to run; empty: all.
	Models []string
}

// New returns the service, which is ready once every model has caught up with the log, but those that an operator has
// paused: it does all that is wanted of it. It fails only for a bad URL, and a model that there is not; a Postgres or an event store that is down is
// waited for.
func New(cfg Config, log *eventlog.Log, logger *slog.Logger, m *consumer.Metrics, calls *rpc.Metrics) (daemon.Service, error) {
	models, err := chosen(cfg.Models)
	if err != nil {
		return daemon.Service{}, err
	}
	pool, err := postgres.Open(cfg.PostgresURL, "projector", 0)
	if err != nil {
		return daemon.Service{}, err
	}
	c := consumer.New(pool, log, "projector", eventschema.Categories(), models, logger, m)
	g := rpc.NewServer("projector", logger, calls)
	projectionv1.RegisterProjectionServiceServer(g, &server{models: c})
	return daemon.Service{
		Name: "projector", GRPC: g, GRPCAddr: cfg.GRPCAddr, HTTPAddr: cfg.HTTPAddr,
		Ready: func(ctx context.Context) error { return ready(ctx, c, pool) },
		Run:   []func(context.Context) error{c.Run},
		Close: pool.Close,
	}, nil
}

// ready tells also that there is no Postgres: the models know only what they can't do without it.
func ready(ctx context.Context, c *consumer.Consumer, pool *pgxpool.Pool) error {
	err := c.ReadyOrPaused(ctx)
	if s := pool.Stat(); err == nil || s.IdleConns()+s.AcquiredConns() > 0 {
		return err
	}
	return cmp.Or(postgres.Explain(pool.Ping(ctx)), err)
}

// chosen are the models of some names, or all.
func chosen(names []string) ([]consumer.Model, error) {
	all := readmodel.Models()
	if len(names) == 0 {
		return all, nil
	}
	var known []string
	for _, m := range all {
		known = append(known, m.Name())
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("there is no read model %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	// One that is named twice is still run once.
	return slices.DeleteFunc(all, func(m consumer.Model) bool { return !slices.Contains(names, m.Name()) }), nil
}
