package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Select is the load of a prepared statement, as pgbench does it: so many clients, each on a connection of its own, that
// execute it again and again, with any number from 1 to last for its $1. A run is as many as the one before says are done in
// the time: by itself pgbench knows whole seconds only, and has the time in which its clients connect be part of them.
func Select(figure, pgbench, url, dir, statement string, last, clients int) Load {
	each := 20 // for a client to do
	return Load{Figure: figure, Unit: "selects/s", Run: func(ctx context.Context, d time.Duration) (Sample, error) {
		script := filepath.Join(dir, "pgbench.sql")
		text := fmt.Sprintf("\\set id random(1, %d)\n%s;\n", last, strings.ReplaceAll(statement, "$1", ":id"))
		if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
			return Sample{}, fmt.Errorf("write the script of pgbench: %w", err)
		}
		target, err := pgx.ParseConfig(url)
		if err != nil {
			return Sample{}, err
		}
		cmd := exec.CommandContext(ctx, pgbench, "--no-vacuum", "--protocol=prepared", "--file="+script, "--random-seed="+strconv.Itoa(seed),
			"--client="+strconv.Itoa(clients), "--jobs="+strconv.Itoa(min(clients, runtime.GOMAXPROCS(0))),
			"--transactions="+strconv.Itoa(each))
		cmd.Env = append(os.Environ(), // not as arguments, which anybody may read
			"PGHOST="+target.Host, "PGPORT="+strconv.Itoa(int(target.Port)), "PGDATABASE="+target.Database,
			"PGUSER="+target.User, "PGPASSWORD="+target.Password)
		out, err := cmd.Output()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		if err != nil {
			return Sample{}, fmt.Errorf("run pgbench: %w", err)
		}
		s, err := readPgbench(string(out))
		if err == nil {
			each = max(1, int(rate(s)*d.Seconds())/clients)
		}
		return s, err
	}}
}

var (
	pgbenchDone = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)`)
	pgbenchRate = regexp.MustCompile(`(?m)^tps = ([\d.]+) \((without initial connection time|excluding connections establishing)\)`)
)

// readPgbench reads what pgbench, of any version, reports. Its rate leaves out the time in which the clients connected.
func readPgbench(report string) (Sample, error) {
	done, rate := pgbenchDone.FindStringSubmatch(report), pgbenchRate.FindStringSubmatch(report)
	if done == nil || rate == nil {
		return Sample{}, fmt.Errorf("pgbench reported %q", report)
	}
	units, err := strconv.Atoi(done[1])
	if err != nil {
		return Sample{}, err
	}
	perSecond, err := strconv.ParseFloat(rate[1], 64)
	if err != nil {
		return Sample{}, err
	}
	return Sample{Units: units, Elapsed: time.Duration(float64(units) / perSecond * float64(time.Second))}, nil
}
