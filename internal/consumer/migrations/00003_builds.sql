-- +goose Up

-- What was derived so far knows no partitions, and is derived anew.
-- +goose StatementBegin
DO $$
DECLARE
  old text;
BEGIN
  FOR old IN SELECT DISTINCT build FROM consumer.checkpoints LOOP
    EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', old);
  END LOOP;
END $$;
-- +goose StatementEnd
DROP TABLE consumer.checkpoints, consumer.relations, consumer.parked, consumer.administration;

-- A build is one set of tables of a model, in a schema of its own.
CREATE TABLE consumer.builds (
    build      text PRIMARY KEY,
    model      text        NOT NULL,
    version    integer     NOT NULL,
    number     integer     NOT NULL,
    -- The identity of the event store that it is made from.
    store      text        NOT NULL,
    -- Where that ended when the build was begun: it is filled once all partitions have come so far.
    target     bigint      NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- NULL: not filled yet, and without its indexes.
    filled_at  timestamptz,
    -- When readers were first sent to it; NULL: never.
    lived_at   timestamptz,
    -- It is being removed: nobody may run it.
    dropping   boolean     NOT NULL DEFAULT false,
    UNIQUE (model, version, number)
);

-- The build that those read who were compiled with a version of the model.
CREATE TABLE consumer.live (
    model   text    NOT NULL,
    version integer NOT NULL,
    build   text    NOT NULL REFERENCES consumer.builds,
    -- The highest number of a build that was dropped: none is used again.
    dropped integer NOT NULL DEFAULT 0,
    PRIMARY KEY (model, version)
);

-- Models that an operator wants to rest.
CREATE TABLE consumer.paused (
    model     text PRIMARY KEY,
    paused_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The processes that run a build, and what they last said of their part of it.
CREATE TABLE consumer.members (
    build        text        NOT NULL REFERENCES consumer.builds ON DELETE CASCADE,
    member       uuid        NOT NULL,
    seen_at      timestamptz NOT NULL,
    -- It has stopped, and said so.
    gone         boolean     NOT NULL DEFAULT false,
    caught_up    boolean     NOT NULL,
    -- Since when its part may lack something; NULL: it lacks nothing that is known of.
    behind_since timestamptz,
    PRIMARY KEY (build, member)
);

-- Who runs a partition, and until when nobody else may take it.
CREATE TABLE consumer.leases (
    build      text     NOT NULL REFERENCES consumer.builds ON DELETE CASCADE,
    partition  smallint NOT NULL,
    member     uuid,
    expires_at timestamptz,
    PRIMARY KEY (build, partition)
);

-- How far each partition has come.
CREATE TABLE consumer.checkpoints (
    build          text     NOT NULL REFERENCES consumer.builds ON DELETE CASCADE,
    partition      smallint NOT NULL,
    position       bigint   NOT NULL DEFAULT 0,
    -- The last event up to there, by which a log that was set back is noticed.
    event_position bigint   NOT NULL DEFAULT 0,
    event_id       uuid     NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    -- How many events of the partition that is.
    events         bigint   NOT NULL DEFAULT 0,
    -- Random, made when the partition is taken, and never used twice: whoever holds another one is fenced off.
    owner          uuid     NOT NULL DEFAULT gen_random_uuid(),
    PRIMARY KEY (build, partition)
) WITH (fillfactor = 20);

-- The tables of a build that are kept up to date for a partition, by the names that readers know: the fold or journal
-- itself, and what is derived from it.
CREATE TABLE consumer.relations (
    build     text     NOT NULL REFERENCES consumer.builds ON DELETE CASCADE,
    partition smallint NOT NULL,
    name      text     NOT NULL,
    version   integer  NOT NULL,
    PRIMARY KEY (build, name, version, partition)
);

-- Keys whose events could not be applied. Their later events are passed over until an operator unparks them.
CREATE TABLE consumer.parked (
    build     text        NOT NULL REFERENCES consumer.builds ON DELETE CASCADE,
    key       text        NOT NULL,
    -- Of the first event that was not applied.
    position  bigint      NOT NULL,
    cause     text        NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- An attempt at it that is ordered, until it is made.
    wanted    uuid,
    PRIMARY KEY (build, key)
);

CREATE INDEX parked_wanted ON consumer.parked (build, key) WHERE wanted IS NOT NULL;
