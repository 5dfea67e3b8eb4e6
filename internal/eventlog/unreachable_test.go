package eventlog

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestTheReasonIsFoundInGRPCsText(t *testing.T) {
	for text, want := range map[string]string{
		`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`: "connection refused",
		`connection error: desc = "transport: Error while dialing: dial tcp [::1]:1: connect: no route to host"`:       "no route to host",
		`connection error: desc = "transport: Error while dialing: dial tcp: lookup nobody: no such host"`:             "lookup nobody: no such host",
		`connection error: desc = "transport: authentication handshake failed: x509: certificate is valid for \"a\""`:  `authentication handshake failed: x509: certificate is valid for "a"`,
		`connection error: desc = "transport: authentication handshake failed: EOF`:                                    `connection error: desc = "transport: authentication handshake failed: EOF`,
		"name resolver error: produced zero addresses":                                                                 "no address is found for its name",
		"unexpected HTTP status code received from server: 502 (Bad Gateway)":                                          "unexpected HTTP status code received from server: 502 (Bad Gateway)",
	} {
		if got := reason(status.Error(codes.Unavailable, text)); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	if got := reason(status.FromContextError(context.DeadlineExceeded).Err()); got != timedOut {
		t.Errorf("a deadline: %q", got)
	}
	if got := reason(errors.New("something else")); got != "something else" {
		t.Errorf("no status: %q", got)
	}
}
