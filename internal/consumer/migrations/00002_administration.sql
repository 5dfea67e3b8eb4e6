-- +goose Up

-- What an operator has ordered of a build, and what its owner last said of it.
CREATE TABLE consumer.administration (
    build        text PRIMARY KEY,
    -- Since when the build rests until it is told to go on; NULL: it does not.
    paused_at    timestamptz,
    -- When the owner was last heard of; NULL: never.
    seen_at      timestamptz,
    caught_up    boolean NOT NULL DEFAULT false,
    -- Since when it may lack something; NULL: it lacks nothing that is known of.
    behind_since timestamptz
);

-- An attempt at a parked key that is ordered, until it is made. A key that can be applied leaves the table, so no outcome is
-- ever left lying about.
ALTER TABLE consumer.parked ADD COLUMN wanted uuid;
