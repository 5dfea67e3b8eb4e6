-- +goose Up

-- How far each partition of a build has come, and who may write it.
CREATE TABLE consumer.checkpoints (
    build     text     NOT NULL,
    partition smallint NOT NULL,
    position  bigint   NOT NULL DEFAULT 0,
    -- The last event up to there, by which a log that was set back is noticed.
    event_position bigint NOT NULL DEFAULT 0,
    event_id       uuid   NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    -- Random and never used twice: whoever holds another one is fenced off.
    owner     uuid     NOT NULL,
    -- The identity of the event store that position belongs to.
    store     text     NOT NULL,
    PRIMARY KEY (build, partition)
);

-- The tables of each build by the names that readers know: the fold or journal itself, and what is derived from it.
CREATE TABLE consumer.relations (
    name    text    NOT NULL,
    version integer NOT NULL,
    build   text    NOT NULL,
    PRIMARY KEY (build, name, version)
);

-- Keys whose events could not be applied. Their later events are passed over until an operator unparks them.
CREATE TABLE consumer.parked (
    build     text        NOT NULL,
    key       text        NOT NULL,
    -- Of the first event that was not applied.
    position  bigint      NOT NULL,
    cause     text        NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (build, key)
);
