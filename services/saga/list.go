package saga

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/purserhq/purser/internal/consumer"
)

// list is the to-do list as the executor reads it. The consumer writes it; only the notes on failures are ours.
type list struct {
	pool    *pgxpool.Pool
	reader  *consumer.Reader
	timeout time.Duration // of each statement
}

// due returns up to max of the items of some steps whose time has come, of the orders in some partitions, in the order in which
// they are to be done: by priority, then by age. An order that is parked rests: its list is from before an
// event that could not be applied, and may ask for what must not be done any more. A time that is further ahead than any pause is
// of a clock that was wrong, and counts as come.
func (l list) due(ctx context.Context, steps []string, partitions []int, now time.Time, max int) ([]task, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	at, err := l.reader.FindPart(ctx, &todo)
	if err != nil {
		return nil, fmt.Errorf("find the to-do list: %w", err)
	}
	rows, err := l.pool.Query(ctx, fmt.Sprintf(`
		SELECT key, %s FROM %s
		WHERE step = ANY($1) AND _partition = ANY($2) AND NOT (next_try > $3 AND next_try <= $4) AND key NOT IN (%s)
		ORDER BY priority DESC, since, key, step, product_id
		LIMIT $5`, consumer.Columns[todoRow](), at.Table, at.Parked()),
		steps, partitions, now, now.Add(maxPause), max)
	if err != nil {
		return nil, fmt.Errorf("read the to-do list: %w", err)
	}
	tasks, err := pgx.CollectRows(rows, pgx.RowToStructByName[task])
	if err != nil {
		return nil, fmt.Errorf("read the to-do list: %w", err)
	}
	return tasks, nil
}

// failed notes that an item has to wait. One that is off the list by now needs no note.
func (l list) failed(ctx context.Context, k itemKey, attempts int64, next time.Time, cause string) error {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	at, err := l.reader.FindPart(ctx, &todo)
	if err != nil {
		return fmt.Errorf("find the to-do list: %w", err)
	}
	_, err = l.pool.Exec(ctx, fmt.Sprintf(`
		UPDATE %s SET attempts = $4, next_try = $5, last_error = $6
		WHERE key = $1 AND step = $2 AND product_id = $3`, at.Table),
		k.order, k.step, k.product, attempts, next, cause)
	if err != nil {
		return fmt.Errorf("note a failure on the to-do list: %w", err)
	}
	return nil
}

// backlog is how many items of a step there are, and how old the oldest is.
type backlog struct {
	Step   string    `db:"step"`
	Items  int64     `db:"items"`
	Oldest time.Time `db:"oldest"`
}

// backlogs counts the items of the orders in some partitions.
func (l list) backlogs(ctx context.Context, partitions []int) ([]backlog, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	at, err := l.reader.FindPart(ctx, &todo)
	if err != nil {
		return nil, fmt.Errorf("find the to-do list: %w", err)
	}
	rows, err := l.pool.Query(ctx, fmt.Sprintf(`SELECT step, count(*) AS items, min(since) AS oldest FROM %s
		WHERE _partition = ANY($1) GROUP BY step`, at.Table), partitions)
	if err != nil {
		return nil, fmt.Errorf("measure the to-do list: %w", err)
	}
	b, err := pgx.CollectRows(rows, pgx.RowToStructByName[backlog])
	if err != nil {
		return nil, fmt.Errorf("measure the to-do list: %w", err)
	}
	return b, nil
}
