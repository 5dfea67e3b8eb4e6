package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/daemon"
	"github.com/purserhq/purser/services/query"
)

// statementTimeout ends a query that takes longer than any caller would wait.
const statementTimeout = 30 * time.Second

func queryCommand() *cobra.Command {
	var f serviceFlags
	cmd := &cobra.Command{
		Use:   "query",
		Short: "Run the query service, which answers from the read models, and of the past from the log",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runService(cmd, func(_ context.Context, p *process) (daemon.Service, error) { return p.query(f) })
		},
	}
	f.addListen(cmd.Flags(), queryPorts)
	f.addEventstore(cmd.Flags())
	f.addPostgres(cmd.Flags())
	f.addSecret(cmd.Flags())
	return cmd
}

func (p *process) query(f serviceFlags) (daemon.Service, error) {
	s, err := loadSecret(f.secretFile)
	if err != nil {
		return daemon.Service{}, err
	}
	log, err := p.eventLog(f.eventstoreURL)
	if err != nil {
		return daemon.Service{}, err
	}
	grpc, http := f.ports.on(f.listen)
	return query.New(query.Config{
		GRPCAddr: grpc, HTTPAddr: http, PostgresURL: f.postgresURL, StatementTimeout: statementTimeout,
	}, log, s, p.log, query.Metrics{RPC: p.rpc, Registry: p.reg})
}
