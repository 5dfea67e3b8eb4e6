-- +goose Up

-- One row per authorization that the gateway took, and what became of it. The payment method is not kept.
CREATE TABLE payment_simulator.payments (
    idempotency_key   text PRIMARY KEY,
    -- The merchant's own name for the payment: an order id.
    reference         text        NOT NULL,
    gateway_reference text        NOT NULL UNIQUE DEFAULT 'sim_' || gen_random_uuid(),
    currency_code     text        NOT NULL,
    amount_minor      bigint      NOT NULL CHECK (amount_minor >= 0),
    -- Null where approved.
    decline_code      text,
    accepted_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When the money moves: later than accepted_at for a bank that is slow.
    effective_at      timestamptz NOT NULL,
    voided_at         timestamptz,
    void_key          text
);

CREATE INDEX payments_reference ON payment_simulator.payments (reference);

-- How often a call was turned away because the bank was down.
CREATE TABLE payment_simulator.refusals (
    idempotency_key text PRIMARY KEY,
    times           integer NOT NULL
);
