package consumer

import (
	"context"
	"hash/fnv"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/purserhq/purser/internal/eventlog"
)

const (
	// partitions is fixed for the life of a build: a key's partition must never change.
	partitions = 16
	// partitionColumn is where the rows of folds, reports and lists say which partition they belong to.
	partitionColumn = "_partition"
)

// partitionOf spreads keys over the partitions.
func partitionOf(key string) int {
	h := fnv.New32a()
	h.Write([]byte(key))
	return int(h.Sum32() % partitions)
}

// everyPartition is all of them.
func everyPartition() []int {
	all := make([]int, partitions)
	for p := range all {
		all[p] = p
	}
	return all
}

// part is a partition that is ours, and how far it has come.
type part struct {
	number   int
	owner    uuid.UUID
	position eventlog.Position
}

// parts are partitions that move together.
type parts []part

func (ps parts) numbers() []int {
	numbers := make([]int, len(ps))
	for i, p := range ps {
		numbers[i] = p.number
	}
	return numbers
}

func (ps parts) owners() []uuid.UUID {
	owners := make([]uuid.UUID, len(ps))
	for i, p := range ps {
		owners[i] = p.owner
	}
	return owners
}

// anchor is the last event up to a checkpoint; the zero one where there was none.
type anchor struct {
	position eventlog.Position
	id       uuid.UUID
}

// advance moves the checkpoints of partitions, where each still is where it was and ours; else moved stays false. events
// is how many events of each partition were passed. Who takes the partitions over has to wait from then on.
func (ps parts) advance(b *pgx.Batch, build string, to eventlog.Position, last anchor, events *[partitions]int, moved *bool) {
	positions, passed := make([]int64, len(ps)), make([]int64, len(ps))
	for i, p := range ps {
		positions[i] = int64(p.position)
		if events != nil {
			passed[i] = int64(events[p.number])
		}
	}
	b.Queue(`UPDATE consumer.checkpoints AS c SET position = $2, event_position = $3, event_id = $4, events = c.events + o.events
		FROM unnest($5::smallint[], $6::uuid[], $7::bigint[], $8::bigint[]) AS o (partition, owner, position, events)
		WHERE c.build = $1 AND c.partition = o.partition AND c.owner = o.owner AND c.position = o.position`,
		build, to, last.position, last.id, ps.numbers(), ps.owners(), positions, passed).
		Query(func(rows pgx.Rows) error {
			rows.Close()
			*moved = rows.CommandTag().RowsAffected() == int64(len(ps))
			return rows.Err()
		})
}

// stand reads how far partitions have come that are still ours, and groups those that stand at the same event.
func stand(ctx context.Context, q querier, build string, ps parts) (map[anchor]parts, error) {
	rows, err := q.Query(ctx, `SELECT c.partition, c.owner, c.position, c.event_position, c.event_id
		FROM consumer.checkpoints AS c JOIN unnest($2::smallint[], $3::uuid[]) AS o (partition, owner) USING (partition, owner)
		WHERE c.build = $1 ORDER BY c.partition`, build, ps.numbers(), ps.owners())
	if err != nil {
		return nil, err
	}
	groups := map[anchor]parts{}
	var p part
	var last anchor
	_, err = pgx.ForEachRow(rows, []any{&p.number, &p.owner, &p.position, &last.position, &last.id}, func() error {
		groups[last] = append(groups[last], p)
		return nil
	})
	return groups, err
}
