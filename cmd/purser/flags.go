package main

import (
	"fmt"
	"net"
	"strconv"

	"github.com/spf13/pflag"
)

// ports are where a service listens unless told otherwise: the same in every example, in one process and in containers.
type ports struct{ grpc, http int }

var (
	writePorts      = ports{50051, 8051}
	queryPorts      = ports{50052, 8052}
	inventoryPorts  = ports{50053, 8053}
	paymentPorts    = ports{50054, 8054}
	sagaPorts       = ports{50055, 8055}
	projectorPorts  = ports{50056, 8056}
	eventstorePorts = ports{2113, 2113}
)

// offset moves both ports, so that several processes can run side by side.
func (p ports) offset(by int) ports { return ports{p.grpc + by, p.http + by} }

// on returns the addresses on a host.
func (p ports) on(host string) (grpc, http string) {
	return net.JoinHostPort(host, strconv.Itoa(p.grpc)), net.JoinHostPort(host, strconv.Itoa(p.http))
}

const loopback = "127.0.0.1"

// serviceFlags are the flags of the services; each command takes those that it uses.
type serviceFlags struct {
	listen                             string
	ports                              ports
	eventstoreURL, postgresURL         string
	secretFile                         string
	writeURL, inventoryURL, paymentURL string
}

func (f *serviceFlags) addListen(fs *pflag.FlagSet, p ports) {
	fs.StringVar(&f.listen, "listen", loopback, "host or address to listen on; there is no authentication, so think before you open it")
	fs.IntVar(&f.ports.grpc, "grpc-port", p.grpc, "port of the gRPC API")
	fs.IntVar(&f.ports.http, "http-port", p.http, "port of /metrics, /livez and /readyz")
}

func (f *serviceFlags) addEventstore(fs *pflag.FlagSet) {
	fs.StringVar(&f.eventstoreURL, "eventstore-url", "esdb://127.0.0.1:2113?tls=false", "connection string of the event store (esdb:// or esdb+discover://)")
}

func (f *serviceFlags) addPostgres(fs *pflag.FlagSet) {
	fs.StringVar(&f.postgresURL, "postgres-url", "postgres://127.0.0.1:5432/purser", "connection string of Postgres")
}

func (f *serviceFlags) addSecret(fs *pflag.FlagSet) {
	fs.StringVar(&f.secretFile, "secret-file", "", "file with the deployment's secret, a line \"<key id> <base64 of 32 bytes>\" (required)")
}

func (f *serviceFlags) addPeers(fs *pflag.FlagSet) {
	fs.StringVar(&f.writeURL, "write-url", target(writePorts), "host:port of the write service")
	fs.StringVar(&f.inventoryURL, "inventory-url", target(inventoryPorts), "host:port of the inventory service")
	fs.StringVar(&f.paymentURL, "payment-url", target(paymentPorts), "host:port of the payment service")
}

func target(p ports) string { return fmt.Sprintf("%s:%d", loopback, p.grpc) }
