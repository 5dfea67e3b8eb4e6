// Package postgres opens pools of connections to Postgres, alike in every service.
//
// A pool connects when it is first used, so a Postgres that is down is waited for, and fails to open only for a bad URL.
// The server shows its connections under the name of the service. How many there may be is for the URL to say, as
// pool_max_conns; without that, the driver's default holds.
package postgres

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Open returns a pool for a service. A statement that takes longer than the time-out is ended; 0 leaves that to the
// server.
func Open(url, service string, statementTimeout time.Duration) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("the connection string of Postgres: %w", err)
	}
	cfg.ConnConfig.RuntimeParams["application_name"] = "purser-" + service
	if statementTimeout > 0 {
		cfg.ConnConfig.RuntimeParams["statement_timeout"] = strconv.FormatInt(statementTimeout.Milliseconds(), 10)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return nil, fmt.Errorf("open a pool of connections to Postgres: %w", err)
	}
	return pool, nil
}
