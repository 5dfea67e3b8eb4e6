// Package purser holds what clients of Purser share beside the generated code.
package purser

import _ "embed"

// ServiceConfig is the gRPC service config for clients of every service: calls go round all replicas, are given a
// deadline, and are tried again where the server says UNAVAILABLE, which is safe for reads by nature and for commands
// because they carry a request id. A stream has neither: it goes on for as long as it is wanted.
//
//go:embed service_config.json
var ServiceConfig string
