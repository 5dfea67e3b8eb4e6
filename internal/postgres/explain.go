package postgres

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Explain makes of an error for which there is no connection one line that says to where, and why. The driver's own text tells
// every attempt, so that a wrong password comes last, after TLS that was not asked for. Other errors are left as they are.
func Explain(err error) error {
	var c *pgconn.ConnectError
	if !errors.As(err, &c) {
		return err
	}
	return &explained{text: fmt.Sprintf("no connection to Postgres at %s: %s", addresses(c.Config), cause(c.Unwrap())), err: err}
}

// explained is an error in other words.
type explained struct {
	text string
	err  error
}

func (e *explained) Error() string { return e.text }

func (e *explained) Unwrap() error { return e.err }

// addresses are those that were tried, with and without TLS.
func addresses(c *pgconn.Config) string {
	all := []string{net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))}
	for _, f := range c.Fallbacks {
		if addr := net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port))); !slices.Contains(all, addr) {
			all = append(all, addr)
		}
	}
	return strings.Join(all, ", ")
}

// cause is what the server says, if it says anything, or else why the last attempt failed.
func cause(attempts error) string {
	var server *pgconn.PgError
	if errors.As(attempts, &server) {
		return server.Message
	}
	var network *net.OpError
	if errors.As(attempts, &network) {
		return strings.TrimPrefix(network.Err.Error(), "connect: ")
	}
	text := attempts.Error()
	text = text[strings.LastIndex(text, "\n")+1:]
	if _, why, ok := strings.Cut(text, "): "); ok { // after the address and the name of the host
		return why
	}
	return text
}
