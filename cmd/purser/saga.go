package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/daemon"
	"github.com/purserhq/purser/services/saga"
)

func sagaCommand() *cobra.Command {
	var f serviceFlags
	cmd := &cobra.Command{
		Use:   "saga",
		Short: "Run the saga, which brings orders to their end",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runService(cmd, func(_ context.Context, p *process) (daemon.Service, error) { return p.saga(f) })
		},
	}
	f.addListen(cmd.Flags(), sagaPorts)
	f.addEventstore(cmd.Flags())
	f.addPostgres(cmd.Flags())
	f.addSecret(cmd.Flags())
	f.addPeers(cmd.Flags())
	return cmd
}

func (p *process) saga(f serviceFlags) (daemon.Service, error) {
	s, err := loadSecret(f.secretFile)
	if err != nil {
		return daemon.Service{}, err
	}
	log, err := p.eventLog(f.eventstoreURL)
	if err != nil {
		return daemon.Service{}, err
	}
	grpc, http := f.ports.on(f.listen)
	return saga.New(saga.Config{
		GRPCAddr: grpc, HTTPAddr: http, PostgresURL: f.postgresURL, StatementTimeout: statementTimeout,
		WriteTarget: f.writeURL, InventoryTarget: f.inventoryURL, PaymentTarget: f.paymentURL,
	}, log, s, p.log, saga.Metrics{RPC: p.rpc, Consumer: p.consumer, Registry: p.reg})
}
