package main

import (
	"github.com/spf13/cobra"

	"github.com/purserhq/purser/services/eventstore"
)

func eventstoreCommand() *cobra.Command {
	var f serviceFlags
	var dir string
	cmd := &cobra.Command{
		Use:   "eventstore",
		Short: "Run the embedded event store alone, for one machine: it speaks EventStoreDB's gRPC protocol",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(cmd)
			if err != nil {
				return err
			}
			p := newProcess(log)
			addr, _ := f.ports.on(f.listen)
			s, err := openEventstore(p, dir, addr)
			if err != nil {
				return err
			}
			return s.Serve(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&dir, "data-dir", defaultDataDir, "directory that holds everything the process keeps")
	cmd.Flags().StringVar(&f.listen, "listen", loopback, "host or address to listen on; there is no authentication, so think before you open it")
	cmd.Flags().IntVar(&f.ports.grpc, "port", eventstorePorts.grpc, "port of gRPC, /health/live, /metrics and /backup")
	cmd.AddCommand(eventstoreVerifyCommand(), eventstoreBackupCommand())
	return cmd
}

// openEventstore opens the embedded store under a data directory, and says what it is not made for.
func openEventstore(p *process, dataDir, addr string) (*eventstore.Server, error) {
	s, err := eventstore.Open(eventstore.Config{Dir: eventstoreDir(dataDir), Addr: addr}, p.log, p.reg)
	if err != nil {
		return nil, err
	}
	p.log.Info("embedded event store, for one machine: it has no replicas", "addr", s.Addr())
	return s, nil
}
