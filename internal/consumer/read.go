package consumer

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/singleflight"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	// One that waits for a position looks again after pauses that grow from the first to the last.
	firstLook = 2 * time.Millisecond
	lastLook  = 25 * time.Millisecond
	// liveTime is for how long a reader goes by what it knows of live builds. A build that is dropped stays for longer than
	// that after the last one was sent to it.
	liveTime    = time.Second
	liveTimeout = 5 * time.Second
)

// Readable is a fold, report, list or journal: a table, of which each build of its model has one.
type Readable interface{ readable() readable }

// readable names a table, and its model, in the versions that the reader was compiled with: what a build of another version
// has applied says nothing about it.
type readable struct {
	model        string
	modelVersion int
	name         string
	version      int
	table        string // without the schema of the build
}

func (f *Fold[R]) readable() readable {
	return readable{f.Name, f.Version, f.Name, f.Version, f.Name}
}

func (j *Journal[J]) readable() readable {
	return readable{j.Name, j.Version, j.Name, j.Version, j.Name}
}

func (r *Report[R, C]) readable() readable {
	return readable{r.Of.Name, r.Of.Version, r.Name, r.Version, derivedName(r.Name, r.Version)}
}

func (l *List[R, E]) readable() readable {
	return readable{l.Of.Name, l.Of.Version, l.Name, l.Version, derivedName(l.Name, l.Version)}
}

// tableIn is the table of a build, quoted and with its schema.
func tableIn(build string, r Readable) string {
	return pgx.Identifier{build, r.readable().table}.Sanitize()
}

// Reader finds the tables of live builds, for those who read. It is safe for concurrent use.
type Reader struct {
	pool  *pgxpool.Pool
	asked singleflight.Group
	known atomic.Pointer[known]
}

// known is the live build of each version of a model, and what is filled there in every partition.
type known struct {
	at     time.Time
	lives  map[modelVersion]string
	filled map[readable]bool // but the names of tables
}

type modelVersion struct {
	model   string
	version int
}

// NewReader returns a reader of the database that a pool leads to.
func NewReader(pool *pgxpool.Pool) *Reader { return &Reader{pool: pool} }

// Place is where something lies in the live build.
type Place struct {
	Build string
	Table string // quoted and with its schema
}

// Parked is a query for the keys whose rows are behind, as an event of theirs can't be applied. What acts on rows, or on what
// is derived from them, leaves these keys alone.
func (p Place) Parked() string {
	return fmt.Sprintf("SELECT key FROM consumer.parked WHERE build = '%s'", p.Build)
}

// Find returns where something lies in the live build of the version that the caller was compiled with. It fails with
// DEPENDENCY_UNAVAILABLE where there is no such build yet, and while a report or list is not filled there in every partition:
// a sum of some is not one that may be shown.
func (r *Reader) Find(ctx context.Context, what Readable) (Place, error) {
	return r.find(ctx, what, (*known).whole)
}

// FindPart is [Reader.Find] for one who looks at nothing but partitions that are level in this process: these are filled,
// whatever others are, which an older version may have.
func (r *Reader) FindPart(ctx context.Context, what Readable) (Place, error) {
	return r.find(ctx, what, (*known).live)
}

func (r *Reader) find(ctx context.Context, what Readable, in func(*known, readable) string) (Place, error) {
	build, err := r.look(ctx, what.readable(), in)
	if err != nil {
		return Place{}, err
	}
	if build == "" {
		return Place{}, fault.Down(typev1.ErrorReason_ERROR_REASON_DEPENDENCY_UNAVAILABLE, "the read models are not built yet", nil)
	}
	return Place{build, tableIn(build, what)}, nil
}

// live is the live build, "" where there is none.
func (k *known) live(s readable) string { return k.lives[modelVersion{s.model, s.modelVersion}] }

// whole is the live build, "" where something is not filled there.
func (k *known) whole(s readable) string {
	build := k.live(s)
	if s.table = ""; !k.filled[s] {
		return ""
	}
	return build
}

// look is the build in which something is, by what is known of late.
func (r *Reader) look(ctx context.Context, s readable, in func(*known, readable) string) (string, error) {
	if k := r.known.Load(); k != nil && time.Since(k.at) < liveTime {
		if build := in(k, s); build != "" {
			return build, nil
		}
	}
	ch := r.asked.DoChan("", func() (any, error) { // one asks for all
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), liveTimeout)
		defer cancel()
		k, err := r.ask(ctx)
		if err == nil {
			r.known.Store(k)
		}
		return k, err
	})
	select {
	case res := <-ch:
		if res.Err != nil {
			return "", res.Err
		}
		return in(res.Val.(*known), s), nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (r *Reader) ask(ctx context.Context) (*known, error) {
	k := &known{at: time.Now(), lives: map[modelVersion]string{}, filled: map[readable]bool{}}
	rows, err := r.pool.Query(ctx, `SELECT l.model, l.version, l.build, r.name, r.version, count(*) = $1
		FROM consumer.live AS l JOIN consumer.relations AS r USING (build)
		WHERE r.partition >= 0 GROUP BY l.model, l.version, l.build, r.name, r.version`, partitions)
	if err == nil {
		var s readable
		var build string
		var filled bool
		_, err = pgx.ForEachRow(rows, []any{&s.model, &s.modelVersion, &build, &s.name, &s.version, &filled}, func() error {
			k.lives[modelVersion{s.model, s.modelVersion}] = build
			k.filled[s] = filled
			return nil
		})
	}
	if err := notMadeYet(err); err != nil {
		return nil, fmt.Errorf("look for live builds: %w", err)
	}
	return k, nil
}

// Await is [Reader.Find] once everything up to a position is applied there: in the partition of a key, or in all where key is
// "". When ctx ends first it fails with PROJECTION_LAG, and for a key that is parked with ENTITY_PARKED. A key that is parked
// is in reports and lists as it was before.
func (r *Reader) Await(ctx context.Context, what Readable, key string, position eventlog.Position) (Place, error) {
	s := what.readable()
	pause := firstLook
	for {
		build, err := r.look(ctx, s, (*known).live)
		if err == nil && build != "" {
			reached, parked, werr := s.watermark(ctx, r.pool, build, key)
			switch {
			case werr == nil && parked:
				return Place{}, fault.Down(typev1.ErrorReason_ERROR_REASON_ENTITY_PARKED, fmt.Sprintf("events of %q could not be applied; an operator is needed", key), nil)
			case werr == nil && reached >= position:
				return Place{build, tableIn(build, what)}, nil
			}
			err = werr
		}
		if err != nil && ctx.Err() == nil {
			return Place{}, err
		}
		select {
		case <-ctx.Done():
			return Place{}, fault.Down(typev1.ErrorReason_ERROR_REASON_PROJECTION_LAG, "the read model has not reached the consistency token yet", ctx.Err())
		case <-time.After(pause):
			pause = min(2*pause, lastLook)
		}
	}
}

// watermark is the position up to which everything is applied to a table, 0 where it is not filled yet, and whether the key
// is parked.
func (s readable) watermark(ctx context.Context, q querier, build, key string) (eventlog.Position, bool, error) {
	of := everyPartition()
	if key != "" {
		of = []int{partitionOf(key)}
	}
	rows, err := q.Query(ctx, `
		SELECT coalesce((SELECT min(position) FROM consumer.checkpoints AS c WHERE build = $1 AND partition = ANY ($4)
		                 HAVING count(*) = (SELECT count(*) FROM consumer.relations
		                                    WHERE build = $1 AND name = $2 AND version = $3 AND partition = ANY ($4))), 0),
		       EXISTS (SELECT FROM consumer.parked WHERE build = $1 AND key = $5)`, build, s.name, s.version, of, key)
	if err != nil {
		return 0, false, notMadeYet(err)
	}
	type answer struct {
		Position int64
		Parked   bool
	}
	a, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[answer])
	return eventlog.Position(a.Position), a.Parked, notMadeYet(err)
}

// Missing tells which of some tables have no live build that is filled, in the versions that the caller was compiled with.
func (r *Reader) Missing(ctx context.Context, all ...Readable) ([]string, error) {
	k, err := r.ask(ctx)
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, what := range all {
		if s := what.readable(); k.whole(s) == "" {
			missing = append(missing, s.name)
		}
	}
	return missing, nil
}

// notMadeYet: where no consumer has ever run there are no tables, and nothing is applied.
func notMadeYet(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.Code == "42P01" || pg.Code == "3F000") {
		return nil
	}
	return err
}
