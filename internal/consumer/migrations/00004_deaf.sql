-- +goose Up

-- It does not hear of the event store, and has left its partitions to others.
ALTER TABLE consumer.members ADD COLUMN deaf boolean NOT NULL DEFAULT false;
