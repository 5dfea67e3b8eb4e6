package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/daemon"
	"github.com/purserhq/purser/services/projector"
)

func projectorCommand() *cobra.Command {
	var f serviceFlags
	var models []string
	cmd := &cobra.Command{
		Use:   "projector",
		Short: "Run the projector, which keeps the read models",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runService(cmd, func(_ context.Context, p *process) (daemon.Service, error) { return p.projector(f, models) })
		},
	}
	f.addListen(cmd.Flags(), projectorPorts)
	f.addEventstore(cmd.Flags())
	f.addPostgres(cmd.Flags())
	cmd.Flags().StringSliceVar(&models, "models", nil, "run only these read models, so that others can run, scale and fail apart; empty: all (comma-separated)")
	return cmd
}

func (p *process) projector(f serviceFlags, models []string) (daemon.Service, error) {
	log, err := p.eventLog(f.eventstoreURL)
	if err != nil {
		return daemon.Service{}, err
	}
	grpc, http := f.ports.on(f.listen)
	return projector.New(projector.Config{GRPCAddr: grpc, HTTPAddr: http, PostgresURL: f.postgresURL, Models: models}, log, p.log, p.consumer, p.rpc)
}
