package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/daemon"
	"github.com/purserhq/purser/services/inventory"
)

func inventoryCommand() *cobra.Command {
	var f serviceFlags
	cmd := &cobra.Command{
		Use:   "inventory",
		Short: "Run the inventory service: the commands on stock",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runService(cmd, func(_ context.Context, p *process) (daemon.Service, error) { return p.inventory(f) })
		},
	}
	f.addListen(cmd.Flags(), inventoryPorts)
	f.addEventstore(cmd.Flags())
	f.addSecret(cmd.Flags())
	return cmd
}

func (p *process) inventory(f serviceFlags) (daemon.Service, error) {
	s, err := loadSecret(f.secretFile)
	if err != nil {
		return daemon.Service{}, err
	}
	log, err := p.eventLog(f.eventstoreURL)
	if err != nil {
		return daemon.Service{}, err
	}
	grpc, http := f.ports.on(f.listen)
	return inventory.New(inventory.Config{GRPCAddr: grpc, HTTPAddr: http}, log, s, p.log, p.rpc), nil
}
