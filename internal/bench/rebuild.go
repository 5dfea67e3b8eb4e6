package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"

	"github.com/purserhq/purser/internal/eventlog"
	projectionv1 "github.com/purserhq/purser/proto/purser/projection/v1"
)

// Follow is the load of a subscription to some categories from the first event to the last there is, by a subscriber that does
// nothing.
func Follow(figure string, log *eventlog.Log, categories []string) Load {
	return Load{Figure: figure, Unit: "events/s", Run: func(ctx context.Context, _ time.Duration) (Sample, error) {
		var s Sample
		end := errors.New("the last one")
		begun := time.Now()
		err := log.Subscribe(ctx, categories, 0, func(_ context.Context, d eventlog.Delivery) error {
			switch {
			case d.Interrupted != nil:
				return d.Interrupted
			case d.CaughtUp:
				return end
			case d.Event != nil:
				s.Units++
			}
			return nil
		})
		if errors.Is(err, end) {
			err = nil
		}
		s.Elapsed = time.Since(begun)
		return s, err
	}}
}

// Copy is the load of a COPY of all rows of a table into one without indexes. What is counted is the events that they are made
// of.
func Copy(figure string, pool *pgxpool.Pool, table string, events int) Load {
	var rows []byte
	return Load{Figure: figure, Unit: "events/s", Run: func(ctx context.Context, _ time.Duration) (s Sample, err error) {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return s, err
		}
		defer conn.Release()
		if rows == nil {
			var b bytes.Buffer
			if _, err := conn.Conn().PgConn().CopyTo(ctx, &b, "COPY "+table+" TO STDOUT (FORMAT binary)"); err != nil {
				return s, fmt.Errorf("copy %s: %w", table, err)
			}
			rows = b.Bytes()
		}
		copied := pgx.Identifier{"public", "purser_bench_copy"}.Sanitize()
		if _, err := conn.Exec(ctx, fmt.Sprintf("CREATE TABLE %s (LIKE %s)", copied, table)); err != nil {
			return s, err
		}
		begun := time.Now()
		_, err = conn.Conn().PgConn().CopyFrom(ctx, bytes.NewReader(rows), "COPY "+copied+" FROM STDIN (FORMAT binary)")
		s = Sample{Units: events, Elapsed: time.Since(begun)}
		_, dropped := conn.Exec(ctx, "DROP TABLE "+copied)
		return s, errors.Join(err, dropped)
	}}
}

// Rebuild is the load of a projection that is made anew, from the order to do so until the build is complete. The build is
// dropped again.
func Rebuild(figure string, projector grpc.ClientConnInterface, projection string) Load {
	client := projectionv1.NewProjectionServiceClient(projector)
	return Load{Figure: figure, Unit: "events/s", Run: func(ctx context.Context, _ time.Duration) (Sample, error) {
		begun := time.Now()
		last, err := rebuilt(ctx, client, projection)
		if err != nil {
			return Sample{}, err
		}
		s := Sample{Units: int(last.GetEventsDone()), Elapsed: time.Since(begun)}
		_, err = client.DropBuild(ctx, &projectionv1.DropBuildRequest{Build: last.GetBuild()})
		return s, err
	}}
}

// rebuilt is the last that is told of a rebuild.
func rebuilt(ctx context.Context, client projectionv1.ProjectionServiceClient, projection string) (last *projectionv1.RebuildProjectionResponse, err error) {
	stream, err := client.RebuildProjection(ctx, &projectionv1.RebuildProjectionRequest{Name: projection, NoSwitch: true})
	if err != nil {
		return nil, err
	}
	for {
		p, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && last.GetPhase() == projectionv1.RebuildPhase_REBUILD_PHASE_DONE:
			return last, nil
		case err != nil:
			return nil, err
		}
		last = p
	}
}
