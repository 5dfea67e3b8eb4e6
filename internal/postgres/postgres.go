// Package postgres opens pools of connections to Postgres, alike in every service.
//
// A pool connects when it is first used, so a Postgres that is down is waited for, and fails to open only for a bad URL.
// The server shows its connections under the name of the service. How many there may be is for the URL to say, as
// pool_max_conns; without that, there are enough for what a service does at once, and not too many for two replicas of each
// service on a Postgres that takes a hundred.
package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// maxConns is how many connections a pool makes at most where the URL does not say. The driver's default, which is four on a
// small machine, has the read models wait for each other.
const maxConns = 10

// settings hold unless the URL says otherwise. All statements of a service find rows by their keys, and are prepared. Prepared
// while a table is small, a statement would read all of it, and go on to do so when it has grown, until Postgres looks at the
// table again. So indexes are taken wherever there is one; and what has none is not worth being compiled.
//
// The server notices within about ten seconds that a client is gone, whether it waits for a statement, runs one, or sends an
// answer, and lets go of the locks of its transaction. Without these settings that may take two hours.
var settings = map[string]string{
	"enable_seqscan": "off", "jit": "off",
	"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "1", "tcp_keepalives_count": "5",
	"client_connection_check_interval": "5s", "tcp_user_timeout": "10s",
}

// said tells whether a connection string gives a setting, by its name or among options.
func said(params map[string]string, setting string) bool {
	_, named := params[setting]
	return named || strings.Contains(params["options"], setting)
}

// Open returns a pool for a service. A statement that takes longer than the time-out is ended; 0 leaves that to the
// server.
func Open(url, service string, statementTimeout time.Duration) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("the connection string of Postgres: %w", err)
	}
	if !strings.Contains(url, "pool_max_conns") {
		cfg.MaxConns = max(cfg.MaxConns, maxConns)
	}
	cfg.ConnConfig.RuntimeParams["application_name"] = "purser-" + service
	for setting, value := range settings {
		if !said(cfg.ConnConfig.RuntimeParams, setting) {
			cfg.ConnConfig.RuntimeParams[setting] = value
		}
	}
	if statementTimeout > 0 {
		cfg.ConnConfig.RuntimeParams["statement_timeout"] = strconv.FormatInt(statementTimeout.Milliseconds(), 10)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return nil, fmt.Errorf("open a pool of connections to Postgres: %w", err)
	}
	return pool, nil
}
