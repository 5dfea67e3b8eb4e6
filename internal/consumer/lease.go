package consumer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// roundPause is how often a process extends its leases, looks for partitions to take, and for orders of operators.
	roundPause = 500 * time.Millisecond
	// leaseTime is how long a partition stays with a process that is not heard of. It is measured by the clock of Postgres.
	leaseTime = 4 * time.Second
	// memory is for how long it is known that there once was a process.
	memory = 24 * time.Hour
	// releaseTimeout bounds the giving up of partitions.
	releaseTimeout = 2 * time.Second
)

// report is what a process says of its part of a build.
type report struct {
	build    string
	caughtUp bool
	behind   time.Duration
}

// holding is what Postgres says of a build: which partitions are ours there, which are free, how many processes run it, and
// how many of them come before this one.
type holding struct {
	ours, free      map[int]bool
	members, before int
}

// share is how many partitions this process should have. The shares of all add up to all partitions, so that nobody is left
// without one for the sake of others; what can't be divided goes to the first.
func (h holding) share() int {
	share := partitions / max(h.members, 1)
	if h.before < partitions%max(h.members, 1) {
		share++
	}
	return share
}

// renew says that a process is alive, extends its leases, and tells how things stand. One that is deaf to the event store gives
// its leases up instead, and has no share. It is committed synchronously, as
// everything about leases is: after a crash of Postgres nobody may hold an older one.
func renew(ctx context.Context, pool *pgxpool.Pool, member uuid.UUID, deaf bool, reports []report) (map[string]*holding, error) {
	builds, caughtUp, behind := make([]string, len(reports)), make([]bool, len(reports)), make([]*time.Duration, len(reports))
	holdings := map[string]*holding{}
	for i, r := range reports {
		builds[i], caughtUp[i] = r.build, r.caughtUp
		if r.behind > 0 {
			behind[i] = &r.behind
		}
		holdings[r.build] = &holding{ours: map[int]bool{}, free: map[int]bool{}}
	}
	err := pgx.BeginTxFunc(ctx, pool, brief, func(tx pgx.Tx) error {
		var b pgx.Batch
		b.Queue(`INSERT INTO consumer.members AS m (build, member, seen_at, deaf, caught_up, behind_since)
			SELECT r.build, $1, clock_timestamp(), $5, r.caught_up AND NOT $5, clock_timestamp() - r.behind
			FROM unnest($2::text[], $3::boolean[], $4::interval[]) AS r (build, caught_up, behind) JOIN consumer.builds USING (build)
			ON CONFLICT (build, member) DO UPDATE
			SET seen_at = EXCLUDED.seen_at, gone = false, deaf = EXCLUDED.deaf, caught_up = EXCLUDED.caught_up, behind_since = EXCLUDED.behind_since`,
			member, builds, caughtUp, behind, deaf)
		b.Queue(`DELETE FROM consumer.members WHERE build = ANY ($1) AND seen_at < clock_timestamp() - $2::interval`, builds, memory)
		if deaf {
			b.Queue(`UPDATE consumer.leases SET member = NULL, expires_at = NULL WHERE member = $1 AND build = ANY ($2)`, member, builds)
		} else {
			b.Queue(`UPDATE consumer.leases SET expires_at = clock_timestamp() + $3::interval WHERE member = $1 AND build = ANY ($2)`, member, builds, leaseTime)
		}
		b.Queue(`SELECT build, count(*), count(*) FILTER (WHERE member < $3) FROM consumer.members
			WHERE build = ANY ($1) AND NOT gone AND NOT deaf AND seen_at > clock_timestamp() - $2::interval GROUP BY build`, builds, leaseTime, member).
			Query(func(rows pgx.Rows) error {
				var build string
				var members, before int
				_, err := pgx.ForEachRow(rows, []any{&build, &members, &before}, func() error {
					holdings[build].members, holdings[build].before = members, before
					return nil
				})
				return err
			})
		b.Queue(`SELECT build, partition, coalesce(member = $1, false), member IS NULL OR expires_at NOT BETWEEN clock_timestamp() AND clock_timestamp() + $3::interval
			FROM consumer.leases WHERE build = ANY ($2)`, member, builds, leaseTime).
			Query(func(rows pgx.Rows) error {
				var build string
				var partition int
				var ours, free bool
				_, err := pgx.ForEachRow(rows, []any{&build, &partition, &ours, &free}, func() error {
					switch h := holdings[build]; {
					case ours:
						h.ours[partition] = true
					case free:
						h.free[partition] = true
					}
					return nil
				})
				return err
			})
		return tx.SendBatch(ctx, &b).Close()
	})
	if err != nil {
		return nil, fmt.Errorf("extend leases: %w", err)
	}
	return holdings, nil
}

// brief are transactions that others may have to wait for: for no longer than for a lease if the process is stopped in the midst
// of one. To say so as it begins saves a round trip.
var brief = pgx.TxOptions{BeginQuery: "BEGIN; " + breakOff(leaseTime)}

// breakOff is a statement that has Postgres break a transaction off once it has waited so long for the process to go on. Where it
// waits for the rest of what was being sent, or to send, the settings of the connection see to that (internal/postgres).
func breakOff(after time.Duration) string {
	return fmt.Sprintf("SET LOCAL idle_in_transaction_session_timeout = %d", after.Milliseconds())
}

// claim takes those of some partitions that are free, or ours without our knowing, under a token never used before.
func claim(ctx context.Context, pool *pgxpool.Pool, member uuid.UUID, build string, wanted []int) (parts, error) {
	owner := uuid.New()
	var taken parts
	err := pgx.BeginTxFunc(ctx, pool, brief, func(tx pgx.Tx) error {
		// There is no waiting for one that is being taken, or that a transaction of the one before has still to do with: it is taken
		// later, and holds up no other.
		rows, err := tx.Query(ctx, `
			UPDATE consumer.leases SET member = $1, expires_at = clock_timestamp() + $4::interval
			WHERE build = $2 AND partition IN (
				SELECT partition FROM consumer.leases JOIN consumer.checkpoints USING (build, partition)
				WHERE build = $2 AND partition = ANY ($3) AND (member IS NULL OR member = $1 OR expires_at NOT BETWEEN clock_timestamp() AND clock_timestamp() + $4::interval)
				FOR UPDATE SKIP LOCKED)
			RETURNING partition`, member, build, wanted, leaseTime)
		if err != nil {
			return err
		}
		free, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			return err
		}
		// This fences off all later transactions of the one before.
		if _, err := tx.Exec(ctx, `UPDATE consumer.checkpoints SET owner = $2 WHERE build = $1 AND partition = ANY ($3)`, build, owner, free); err != nil {
			return err
		}
		for _, p := range free {
			taken = append(taken, part{number: p, owner: owner})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("take partitions of %s: %w", build, err)
	}
	return taken, nil
}

// release gives partitions up, so that others may take them at once.
func release(ctx context.Context, pool *pgxpool.Pool, member uuid.UUID, build string, given []int) error {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	_, err := pool.Exec(ctx, `UPDATE consumer.leases SET member = NULL, expires_at = NULL WHERE build = $1 AND member = $2 AND partition = ANY ($3)`,
		build, member, given)
	return err
}

// leave gives up everything, and says that the process has stopped.
func leave(ctx context.Context, pool *pgxpool.Pool, member uuid.UUID) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	return pgx.BeginTxFunc(ctx, pool, brief, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE consumer.leases SET member = NULL, expires_at = NULL WHERE member = $1`, member); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE consumer.members SET gone = true, seen_at = clock_timestamp() WHERE member = $1`, member)
		return err
	})
}

// EndLeases has nobody hold a partition of any model, so that who starts takes them at once and waits for no lease of one that
// died. It is for a database on which nobody else runs: one who does all the same can't write any more, and has to wait for
// its share like all others.
func EndLeases(ctx context.Context, pool *pgxpool.Pool) error {
	err := pgx.BeginTxFunc(ctx, pool, brief, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE consumer.leases SET member = NULL, expires_at = NULL WHERE member IS NOT NULL`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE consumer.members SET gone = true WHERE NOT gone`)
		return err
	})
	if err := notMadeYet(err); err != nil {
		return fmt.Errorf("end leases: %w", err)
	}
	return nil
}

// some picks n at random, so that those who pick at once seldom pick the same.
func some(of map[int]bool, n int) []int {
	all := make([]int, 0, len(of))
	for p := range of {
		all = append(all, p)
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(max(n, 0), len(all))]
}
