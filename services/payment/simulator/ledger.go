package simulator

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/purserhq/purser/services/payment/gateway"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrationLock is the advisory lock under which the ledger is made: our own, so that nobody else's migrations wait.
const migrationLock int64 = 0x7075727365725f70

// payment is a row of the ledger.
type payment struct {
	Reference        string
	GatewayReference string
	CurrencyCode     string
	AmountMinor      int64
	DeclineCode      *string
	EffectiveIn      time.Duration // not positive: now or before
	Voided           bool
}

const selectPayment = `
SELECT reference, gateway_reference, currency_code, amount_minor, decline_code,
       effective_at - clock_timestamp() AS effective_in, voided_at IS NOT NULL AS voided
FROM payment_simulator.payments `

// Entry is what the ledger says of one authorization.
type Entry struct {
	GatewayReference string
	CurrencyCode     string
	AmountMinor      int64
	// Declined tells that the bank said no.
	Declined bool
	// Held tells that the customer's money is held: approved, and not voided.
	Held bool
}

// Entries are the authorizations on the ledger for a reference, for whoever checks the books.
func (s *Simulator) Entries(ctx context.Context, reference string) ([]Entry, error) {
	if err := s.migrate(ctx); err != nil {
		return nil, unavailable(err)
	}
	rows, err := s.pool.Query(ctx, selectPayment+"WHERE reference = $1 ORDER BY accepted_at", reference)
	if err != nil {
		return nil, unavailable(err)
	}
	payments, err := pgx.CollectRows(rows, pgx.RowToStructByName[payment])
	if err != nil {
		return nil, unavailable(err)
	}
	entries := make([]Entry, len(payments))
	for i, p := range payments {
		entries[i] = Entry{
			GatewayReference: p.GatewayReference, CurrencyCode: p.CurrencyCode, AmountMinor: p.AmountMinor,
			Declined: p.DeclineCode != nil, Held: p.DeclineCode == nil && !p.Voided,
		}
	}
	return entries, nil
}

// is tells whether the payment was made by this very call.
func (p payment) is(c gateway.Authorize) bool {
	return p.Reference == c.Reference && p.CurrencyCode == c.Amount.GetCurrencyCode() && p.AmountMinor == c.Amount.GetAmountMinor()
}

func (p payment) outcome() gateway.Outcome {
	if p.DeclineCode != nil {
		return gateway.Outcome{Result: gateway.Declined, Code: *p.DeclineCode}
	}
	return gateway.Outcome{Result: gateway.Approved, GatewayReference: p.GatewayReference}
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func paymentByKey(ctx context.Context, q querier, key string) (payment, error) {
	return onePayment(ctx, q, "WHERE idempotency_key = $1", key)
}

// paymentByReference finds only what has taken effect, and an approval before a refusal.
func paymentByReference(ctx context.Context, q querier, reference string) (payment, error) {
	return onePayment(ctx, q, `WHERE reference = $1 AND effective_at <= clock_timestamp()
		ORDER BY decline_code IS NULL DESC, accepted_at DESC LIMIT 1`, reference)
}

func onePayment(ctx context.Context, q querier, where, arg string) (payment, error) {
	rows, err := q.Query(ctx, selectPayment+where, arg)
	if err != nil {
		return payment{}, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[payment])
}

// enter puts an authorization on the ledger, unless one under the same key is there: then that is returned. A call
// under the same key that runs at this moment is waited for.
func enter(ctx context.Context, tx pgx.Tx, c gateway.Authorize, b behaviour) (p payment, entered bool, err error) {
	tag, err := tx.Exec(ctx, `
INSERT INTO payment_simulator.payments (idempotency_key, reference, currency_code, amount_minor, decline_code, effective_at)
VALUES ($1, $2, $3, $4, nullif($5, ''), clock_timestamp() + $6::interval)
ON CONFLICT (idempotency_key) DO NOTHING`,
		c.Key, c.Reference, c.Amount.GetCurrencyCode(), c.Amount.GetAmountMinor(), b.declineCode, b.after)
	if err != nil {
		return payment{}, false, err
	}
	p, err = paymentByKey(ctx, tx, c.Key)
	return p, tag.RowsAffected() > 0, err
}

// turnedAway counts a call, and tells whether it is one of the first that are turned away.
func turnedAway(ctx context.Context, tx pgx.Tx, key string, times int) (bool, error) {
	var n int
	err := tx.QueryRow(ctx, `
INSERT INTO payment_simulator.refusals AS r (idempotency_key, times) VALUES ($1, 1)
ON CONFLICT (idempotency_key) DO UPDATE SET times = r.times + 1 RETURNING times`, key).Scan(&n)
	return n <= times, err
}

// void marks an approved payment, if there is one. The first void stands.
func void(ctx context.Context, tx pgx.Tx, c gateway.Void) (found bool, err error) {
	tag, err := tx.Exec(ctx, `
UPDATE payment_simulator.payments
SET voided_at = coalesce(voided_at, clock_timestamp()), void_key = coalesce(void_key, $2)
WHERE gateway_reference = $1 AND decline_code IS NULL`, c.GatewayReference, c.Key)
	return tag.RowsAffected() > 0, err
}

// migrate makes the ledger, or brings it up to date, once. Replicas that start together take turns.
func (s *Simulator) migrate(ctx context.Context) error {
	if s.migrated.Load() {
		return nil
	}
	select {
	case s.migrating <- struct{}{}:
		defer func() { <-s.migrating }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// The table of versions lies in the schema too, so the schema comes before the first migration. The lock is needed:
	// two sessions that find no schema both try to create it.
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", migrationLock); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS payment_simulator")
		return err
	})
	if err != nil {
		return fmt.Errorf("create the schema payment_simulator: %w", err)
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(migrationLock), lock.WithLockTimeout(1, 30))
	if err != nil {
		return err
	}
	db := stdlib.OpenDBFromPool(s.pool)
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithTableName("payment_simulator.goose_db_version"), goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return errors.Join(err, db.Close())
	}
	_, err = provider.Up(ctx)
	if err := errors.Join(err, provider.Close()); err != nil {
		return fmt.Errorf("migrate the schema payment_simulator: %w", err)
	}
	s.migrated.Store(true)
	return nil
}
