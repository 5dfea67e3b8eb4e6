// Package simulator is a payment gateway with a ledger and no money: the default, for tests and for trying Purser out.
//
// It behaves like a gateway across a network. Its ledger is a schema of its own in Postgres, committed synchronously and
// shared by any number of replicas, so what it took survives every crash of ours. The payment method decides what
// happens to an authorization; the table is in methods.go.
//
// A slow authorization is on the ledger from the moment the call arrives, with the time at which it takes effect. Until
// then a look-up does not find it and a call under the same key waits for it; and it takes effect even if every caller
// has left. That is the case in which "not found" must not be taken for an answer.
package simulator

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/purserhq/purser/services/payment/gateway"
)

const (
	// keyLifetime is what real gateways promise. The ledger never forgets, which is more than promised.
	keyLifetime = 24 * time.Hour
	// defaultSlow is how late a slow bank answers.
	defaultSlow = 3 * time.Second
)

// codeKeyReused is the failure of a call whose key was used for another call before.
const codeKeyReused = "idempotency_key_reused"

// Config steers the simulator.
type Config struct {
	// Slow is how late the method pm_sim_slow takes effect and is answered; 0 is three seconds.
	Slow time.Duration
}

// Simulator is a gateway.Gateway. It is safe for concurrent use.
type Simulator struct {
	pool *pgxpool.Pool
	slow time.Duration

	// migrating is held by the one who makes the ledger; a channel, so that waiting for it can be given up.
	migrating chan struct{}
	migrated  atomic.Bool
}

var _ gateway.Gateway = (*Simulator)(nil)

// New returns a simulator whose ledger lies in the pool's database. The ledger is made on first use, so Postgres may be
// down as yet. The pool is the caller's to close.
func New(pool *pgxpool.Pool, cfg Config) *Simulator {
	if cfg.Slow == 0 {
		cfg.Slow = defaultSlow
	}
	return &Simulator{pool: pool, slow: cfg.Slow, migrating: make(chan struct{}, 1)}
}

// KeyLifetime implements gateway.Gateway.
func (s *Simulator) KeyLifetime() time.Duration { return keyLifetime }

// Ping implements gateway.Gateway.
func (s *Simulator) Ping(ctx context.Context) error {
	if err := s.migrate(ctx); err != nil {
		return unavailable(err)
	}
	if err := s.pool.Ping(ctx); err != nil {
		return unavailable(err)
	}
	return nil
}

// Authorize implements gateway.Gateway.
func (s *Simulator) Authorize(ctx context.Context, c gateway.Authorize) (gateway.Outcome, error) {
	b := behaviourOf(c.Method)
	if b.slow {
		b.after = s.slow
	}
	var (
		p     payment
		taken bool // by this call, not by an earlier one under the same key
		down  bool
	)
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		var err error
		if p, err = paymentByKey(ctx, tx, c.Key); !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if b.refusals > 0 {
			if down, err = turnedAway(ctx, tx, c.Key, b.refusals); down || err != nil {
				return err
			}
		}
		p, taken, err = enter(ctx, tx, c, b)
		return err
	})
	switch {
	case err != nil:
		return gateway.Outcome{}, err
	case down:
		return gateway.Outcome{}, fmt.Errorf("simulated: %w", gateway.ErrUnavailable)
	case !p.is(c):
		return gateway.Outcome{Result: gateway.Failed, Code: codeKeyReused}, nil
	case taken && b.loseAnswer:
		return gateway.Outcome{}, fmt.Errorf("simulated: %w", gateway.ErrOutcomeUnknown)
	}
	select {
	case <-time.After(p.EffectiveIn):
		return p.outcome(), nil
	case <-ctx.Done():
		return gateway.Outcome{}, fmt.Errorf("%w: %w", gateway.ErrOutcomeUnknown, ctx.Err())
	}
}

// Void implements gateway.Gateway.
func (s *Simulator) Void(ctx context.Context, c gateway.Void) error {
	found := false
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		var err error
		found, err = void(ctx, tx, c)
		return err
	})
	if err == nil && !found {
		err = fmt.Errorf("void %s: %w", c.GatewayReference, gateway.ErrRefused)
	}
	return err
}

// LookUp implements gateway.Gateway.
func (s *Simulator) LookUp(ctx context.Context, reference string) (gateway.Outcome, error) {
	if err := s.migrate(ctx); err != nil {
		return gateway.Outcome{}, unavailable(err)
	}
	p, err := paymentByReference(ctx, s.pool, reference)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return gateway.Outcome{}, fmt.Errorf("look up %s: %w", reference, gateway.ErrNotFound)
	case err != nil:
		return gateway.Outcome{}, unavailable(err)
	}
	return p.outcome(), nil
}

// inTx runs f in a transaction. Whatever fails before the commit is certainly undone; a commit that fails may have been
// carried out.
func (s *Simulator) inTx(ctx context.Context, f func(pgx.Tx) error) error {
	if err := s.migrate(ctx); err != nil {
		return unavailable(err)
	}
	// The pool's default may be asynchronous; a gateway that forgot an answer it gave would be of no use.
	tx, err := s.pool.BeginTx(ctx, pgx.TxOptions{BeginQuery: "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = on"})
	if err != nil {
		return unavailable(err)
	}
	defer tx.Rollback(ctx) // after a commit it does nothing
	if err := f(tx); err != nil {
		return unavailable(err)
	}
	switch err := tx.Commit(ctx); {
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return unavailable(err)
	case err != nil:
		return fmt.Errorf("%w: commit to the ledger: %w", gateway.ErrOutcomeUnknown, err)
	}
	return nil
}

func unavailable(cause error) error {
	return fmt.Errorf("%w: ledger: %w", gateway.ErrUnavailable, cause)
}
