package consumer

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/purserhq/purser/internal/eventlog"
)

// Parked is a query for the keys of the live build whose rows are behind, as an event of theirs can't be applied. What
// acts on rows, or on what is derived from them, leaves these keys alone.
func (f *Fold[R]) Parked() string {
	return fmt.Sprintf("SELECT key FROM consumer.parked WHERE build = '%s'", buildName(f.Name, f.Version))
}

// ParkedKey is a key whose events can't be applied to a model.
type ParkedKey struct {
	Model string
	Key   string
	// Position is that of the first event that was not applied, Cause why the last attempt failed.
	Position eventlog.Position
	Cause    string
	ParkedAt time.Time
}

// Parked lists the parked keys of a model, or of all of the consumer where that is "", in the order of models and keys: at
// most limit of those that come after one.
func (c *Consumer) Parked(ctx context.Context, model string, after ParkedKey, limit int) ([]ParkedKey, error) {
	var names, builds []string
	for _, l := range c.lanes {
		if model == "" || l.model.name == model {
			names, builds = append(names, l.model.name), append(builds, l.model.build)
		}
	}
	if _, err := c.model(model); model != "" && err != nil {
		return nil, err
	}
	rows, err := c.pool.Query(ctx, `
		SELECT m.name COLLATE "C" AS model, key COLLATE "C", position, cause, parked_at
		FROM consumer.parked JOIN unnest($1::text[], $2::text[]) AS m(name, build) USING (build)
		WHERE (m.name COLLATE "C", key COLLATE "C") > ($3, $4) ORDER BY 1, 2 LIMIT $5`, names, builds, after.Model, after.Key, limit)
	var keys []ParkedKey
	if err == nil {
		keys, err = pgx.CollectRows(rows, pgx.RowToStructByPos[ParkedKey])
	}
	if err := notMadeYet(err); err != nil {
		return nil, fmt.Errorf("list parked keys: %w", err)
	}
	return keys, nil
}
