package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/daemon"
	"github.com/purserhq/purser/services/write"
)

func writeCommand() *cobra.Command {
	var f serviceFlags
	cmd := &cobra.Command{
		Use:   "write",
		Short: "Run the write service: the commands of the catalogue and of orders",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runService(cmd, func(_ context.Context, p *process) (daemon.Service, error) { return p.write(f) })
		},
	}
	f.addListen(cmd.Flags(), writePorts)
	f.addEventstore(cmd.Flags())
	f.addSecret(cmd.Flags())
	return cmd
}

func (p *process) write(f serviceFlags) (daemon.Service, error) {
	s, err := loadSecret(f.secretFile)
	if err != nil {
		return daemon.Service{}, err
	}
	log, err := p.eventLog(f.eventstoreURL)
	if err != nil {
		return daemon.Service{}, err
	}
	grpc, http := f.ports.on(f.listen)
	return write.New(write.Config{GRPCAddr: grpc, HTTPAddr: http}, log, s, p.log, p.rpc), nil
}
