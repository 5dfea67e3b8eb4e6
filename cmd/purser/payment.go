package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/daemon"
	"github.com/purserhq/purser/services/payment"
	"github.com/purserhq/purser/services/payment/simulator"
)

func paymentCommand() *cobra.Command {
	var f serviceFlags
	cmd := &cobra.Command{
		Use:   "payment",
		Short: "Run the payment service, on the simulated gateway",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runService(cmd, func(_ context.Context, p *process) (daemon.Service, error) { return p.payment(f) })
		},
	}
	f.addListen(cmd.Flags(), paymentPorts)
	f.addEventstore(cmd.Flags())
	f.addPostgres(cmd.Flags())
	f.addSecret(cmd.Flags())
	return cmd
}

func (p *process) payment(f serviceFlags) (daemon.Service, error) {
	s, err := loadSecret(f.secretFile)
	if err != nil {
		return daemon.Service{}, err
	}
	log, err := p.eventLog(f.eventstoreURL)
	if err != nil {
		return daemon.Service{}, err
	}
	pool, err := p.pool(f.postgresURL, "payment")
	if err != nil {
		return daemon.Service{}, err
	}
	grpc, http := f.ports.on(f.listen)
	gateway := simulator.New(pool, simulator.Config{})
	return payment.New(payment.Config{GRPCAddr: grpc, HTTPAddr: http}, log, s, gateway, p.log, p.rpc), nil
}
