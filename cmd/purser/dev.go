package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/daemon"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/localpostgres"
	"github.com/purserhq/purser/internal/postgres"
	"github.com/purserhq/purser/internal/secret"
)

const (
	defaultDataDir = ".purser"
	// stopTimeout bounds how long the embedded parts may take to stop.
	stopTimeout = 10 * time.Second
	// readyPoll is how often a starting process looks whether it is ready.
	readyPoll = 20 * time.Millisecond
)

func eventstoreDir(dataDir string) string { return filepath.Join(dataDir, "eventstore") }

// devConfig is the configuration of the all-in-one process.
type devConfig struct {
	dataDir, listen            string
	portOffset                 int
	eventstoreURL, postgresURL string
	rebuild                    bool
}

func devCommand() *cobra.Command {
	var cfg devConfig
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything in one process, on an embedded event store and a private Postgres",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(cmd)
			if err != nil {
				return err
			}
			p := newProcess(log)
			return runDev(cmd.Context(), p, cfg, cmd.OutOrStdout())
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&cfg.dataDir, "data-dir", defaultDataDir, "directory that holds everything the process keeps")
	fs.StringVar(&cfg.listen, "listen", loopback, "host or address to listen on; there is no authentication, so think before you open it")
	fs.IntVar(&cfg.portOffset, "port-offset", 0, "added to every port, to run several side by side")
	fs.StringVar(&cfg.eventstoreURL, "eventstore-url", "", "connection string of an event store to use instead of the embedded one")
	fs.StringVar(&cfg.postgresURL, "postgres-url", "", "connection string of a Postgres to use instead of a private one")
	fs.BoolVar(&cfg.rebuild, "rebuild", false, "drop what is derived from the log at the start, to make it anew: after an older log was restored")
	return cmd
}

// runDev starts the embedded parts, then the services on them, and stops them in the opposite order.
func runDev(ctx context.Context, p *process, cfg devConfig, out io.Writer) error {
	// The embedded parts outlive the services that use them.
	embeddedCtx, stopEmbedded := context.WithCancel(context.WithoutCancel(ctx))
	embedded, embeddedCtx := errgroup.WithContext(embeddedCtx)
	servicesCtx, stopServices := context.WithCancel(ctx)
	defer stopServices()
	context.AfterFunc(embeddedCtx, stopServices)

	started := time.Now()
	err := func() error {
		defer p.close()
		if err := cfg.checkPorts(); err != nil {
			return err
		}
		if err := cfg.checkURLs(p.log); err != nil {
			return err
		}
		if err := os.MkdirAll(cfg.dataDir, 0o711); err != nil {
			return fmt.Errorf("make the data directory: %w", err)
		}
		ownStore, ownPostgres := cfg.eventstoreURL == "", cfg.postgresURL == ""
		if err := startEmbedded(servicesCtx, embeddedCtx, embedded, p, &cfg); err != nil {
			return err
		}
		if cfg.rebuild {
			if err := onDatabase(servicesCtx, cfg.postgresURL, consumer.DropAll); err != nil {
				return err
			}
		}
		if ownPostgres {
			// Whoever holds leases here is a dev before this one, which is dead: it would have held the directory. Its read models and
			// its saga would rest for seconds otherwise.
			if err := onDatabase(servicesCtx, cfg.postgresURL, consumer.EndLeases); err != nil {
				return err
			}
		}
		services, err := devServices(p, cfg)
		if err != nil {
			return err
		}
		listed := services
		if ownStore {
			addr, _ := eventstorePorts.offset(cfg.portOffset).on(cfg.listen)
			listed = append(slices.Clone(services), daemon.Service{Name: "eventstore", GRPCAddr: addr, HTTPAddr: addr})
		}
		return daemon.Run(servicesCtx, p.log, p.reg, append(services, announcer(listed, cfg.portOffset, started, out))...)
	}()
	stopEmbedded()
	return errors.Join(err, embedded.Wait())
}

// checkPorts looks whether every port can be had, before anything is made or started.
func (cfg devConfig) checkPorts() error {
	all := map[string]ports{
		"write": writePorts, "query": queryPorts, "inventory": inventoryPorts, "payment": paymentPorts, "saga": sagaPorts, "projector": projectorPorts,
	}
	if cfg.eventstoreURL == "" {
		all["eventstore"] = eventstorePorts
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		grpc, http := all[name].offset(cfg.portOffset).on(cfg.listen)
		for _, addr := range slices.Compact([]string{grpc, http}) {
			l, err := net.Listen("tcp", addr)
			switch {
			case errors.Is(err, syscall.EADDRINUSE):
				return fmt.Errorf("the %s service can't listen on %s: the port is in use (--port-offset chooses others)", name, addr)
			case err != nil:
				return fmt.Errorf("the %s service can't listen on %s: %w", name, addr, err)
			}
			if err := l.Close(); err != nil {
				return fmt.Errorf("give back %s: %w", addr, err)
			}
		}
	}
	return nil
}

// checkURLs looks whether the connection strings that are given can be read, also before anything is made. It connects to nothing.
func (cfg devConfig) checkURLs(log *slog.Logger) error {
	if cfg.eventstoreURL != "" {
		store, err := eventlog.Open(cfg.eventstoreURL, eventschema.New(), log, nil)
		if err != nil {
			return err
		}
		store.Close()
	}
	if cfg.postgresURL != "" {
		pool, err := postgres.Open(cfg.postgresURL, "dev", 0)
		if err != nil {
			return err
		}
		pool.Close()
	}
	return nil
}

// startEmbedded starts what no URL stands for, and sets its URL. The start ends with startCtx, what was started with ctx.
func startEmbedded(startCtx, ctx context.Context, g *errgroup.Group, p *process, cfg *devConfig) error {
	if cfg.eventstoreURL != "" {
		p.log.Info("not the embedded event store, but the one of --eventstore-url or PURSER_EVENTSTORE_URL is used")
	} else {
		addr, _ := eventstorePorts.offset(cfg.portOffset).on(cfg.listen)
		store, err := openEventstore(p, cfg.dataDir, addr)
		if err != nil {
			return err
		}
		g.Go(func() error { return store.Serve(ctx) })
		cfg.eventstoreURL = "esdb://" + store.Addr() + "?tls=false"
	}
	if cfg.postgresURL != "" {
		p.log.Info("not a private Postgres, but the one of --postgres-url or PURSER_POSTGRES_URL is used")
	} else {
		cluster, err := localpostgres.Start(startCtx, filepath.Join(cfg.dataDir, "postgres"), p.log)
		if err != nil {
			return err
		}
		g.Go(func() error {
			err := cluster.Supervise(ctx)
			stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
			defer cancel()
			return errors.Join(err, cluster.Stop(stopCtx))
		})
		cfg.postgresURL = cluster.URL()
	}
	return nil
}

// devServices builds every service, on the usual ports.
func devServices(p *process, cfg devConfig) ([]daemon.Service, error) {
	secretFile := filepath.Join(cfg.dataDir, "secret")
	if _, err := secret.LoadOrCreate(secretFile); err != nil {
		return nil, err
	}
	peer := func(ports ports) string { addr, _ := ports.offset(cfg.portOffset).on(cfg.listen); return addr }
	flags := func(ports ports) serviceFlags {
		return serviceFlags{
			listen: cfg.listen, ports: ports.offset(cfg.portOffset),
			eventstoreURL: cfg.eventstoreURL, postgresURL: cfg.postgresURL, secretFile: secretFile,
			writeURL: peer(writePorts), inventoryURL: peer(inventoryPorts), paymentURL: peer(paymentPorts),
		}
	}
	var services []daemon.Service
	for _, build := range []func() (daemon.Service, error){
		func() (daemon.Service, error) { return p.write(flags(writePorts)) },
		func() (daemon.Service, error) { return p.query(flags(queryPorts)) },
		func() (daemon.Service, error) { return p.inventory(flags(inventoryPorts)) },
		func() (daemon.Service, error) { return p.payment(flags(paymentPorts)) },
		func() (daemon.Service, error) { return p.saga(flags(sagaPorts)) },
		func() (daemon.Service, error) { return p.projector(flags(projectorPorts), nil) },
	} {
		s, err := build()
		if err != nil {
			return nil, err
		}
		services = append(services, s)
	}
	return services, nil
}

// announcer is a service that says where the others listen once all are ready.
func announcer(services []daemon.Service, portOffset int, started time.Time, out io.Writer) daemon.Service {
	return daemon.Service{Name: "announcer", Run: []func(context.Context) error{func(ctx context.Context) error {
		for _, s := range services {
			for s.Ready != nil && s.Ready(ctx) != nil {
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(readyPoll):
				}
			}
		}
		return announce(out, services, portOffset, time.Since(started))
	}}}
}

// announce ends with the first call of the README, so that the same line twice is one command sent twice.
func announce(out io.Writer, services []daemon.Service, portOffset int, took time.Duration) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\nPurser is ready (%.1f s).\n\nSERVICE\tGRPC\tHTTP (/metrics /livez /readyz)\n", took.Seconds())
	var write string
	for _, s := range services {
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.Name, s.GRPCAddr, s.HTTPAddr)
		if s.Name == "write" {
			write = s.GRPCAddr
		}
	}
	demo := "purser demo"
	if portOffset != 0 {
		demo += fmt.Sprintf(" --port-offset %d", portOffset)
	}
	fmt.Fprintf(w, "\nTry (after `make tools`):\n\n  bin/grpcurl -plaintext -d '{\"request_id\":\"6a4c6e5e-55e9-4a0c-8a38-6ad2c8f1a001\",\"product_id\":\"mug\","+
		"\"name\":\"Enamel mug\",\"price\":{\"currency_code\":\"EUR\",\"amount_minor\":1450}}' %s purser.catalog.v1.CatalogService/CreateProduct\n\n"+
		"or run `%s`. Ctrl-C stops.\n\n", write, demo)
	return w.Flush()
}
