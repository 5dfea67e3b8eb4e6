package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/daemon"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/postgres"
	"github.com/purserhq/purser/internal/rpc"
	"github.com/purserhq/purser/internal/secret"
)

// process is what the services of one process share. What it opens, close closes.
type process struct {
	log      *slog.Logger
	reg      *prometheus.Registry
	rpc      *rpc.Metrics
	consumer *consumer.Metrics
	closers  []func()
}

func newProcess(log *slog.Logger) *process {
	if err := daemon.TuneMemory(); err != nil {
		log.Warn("the memory limit is not set", "error", err)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return &process{log: log, reg: reg, rpc: rpc.NewMetrics(reg), consumer: consumer.NewMetrics(reg)}
}

func (p *process) close() {
	for i := len(p.closers) - 1; i >= 0; i-- {
		p.closers[i]()
	}
}

// eventLog connects to the event store; one that is down is waited for when it is used.
func (p *process) eventLog(url string) (*eventlog.Log, error) {
	l, err := eventlog.Open(url, eventschema.New(), p.log, p.reg)
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, l.Close)
	return l, nil
}

// pool connects to Postgres; one that is down is waited for when it is used.
func (p *process) pool(url, service string) (*pgxpool.Pool, error) {
	pool, err := postgres.Open(url, service, 0)
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, pool.Close)
	return pool, nil
}

// onDatabase does one thing on a database.
func onDatabase(ctx context.Context, url string, do func(context.Context, *pgxpool.Pool) error) error {
	pool, err := postgres.Open(url, "dev", 0)
	if err != nil {
		return err
	}
	defer pool.Close()
	return do(ctx, pool)
}

func loadSecret(file string) (*secret.Secret, error) {
	if file == "" {
		return nil, errors.New("--secret-file is required: it names the file with the deployment's secret")
	}
	return secret.Load(file)
}

// runService is the body of a command that runs one service.
func runService(cmd *cobra.Command, build func(ctx context.Context, p *process) (daemon.Service, error)) error {
	log, err := newLogger(cmd)
	if err != nil {
		return err
	}
	p := newProcess(log)
	defer p.close()
	s, err := build(cmd.Context(), p)
	if err != nil {
		return err
	}
	return daemon.Run(cmd.Context(), log, p.reg, s)
}
