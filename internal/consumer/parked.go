package consumer

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/purserhq/purser/internal/eventlog"
)

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
	if _, err := c.model(model); model != "" && err != nil {
		return nil, err
	}
	var names []string
	var versions []int
	for _, m := range c.models {
		if model == "" || m.name == model {
			names, versions = append(names, m.name), append(versions, m.version)
		}
	}
	rows, err := c.pool.Query(ctx, `
		SELECT l.model COLLATE "C" AS model, key COLLATE "C", position, cause, parked_at
		FROM consumer.parked JOIN consumer.live AS l USING (build) JOIN unnest($1::text[], $2::integer[]) AS m (model, version) USING (model, version)
		WHERE (l.model COLLATE "C", key COLLATE "C") > ($3, $4) ORDER BY 1, 2 LIMIT $5`, names, versions, after.Model, after.Key, limit)
	var keys []ParkedKey
	if err == nil {
		keys, err = pgx.CollectRows(rows, pgx.RowToStructByPos[ParkedKey])
	}
	if err := notMadeYet(err); err != nil {
		return nil, fmt.Errorf("list parked keys: %w", err)
	}
	return keys, nil
}
