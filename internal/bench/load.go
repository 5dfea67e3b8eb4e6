package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/purserhq/purser/proto/purser"
)

// ClosedLoop is the Run of a load in which so many callers each do one operation after the other. An operation that was
// begun in time is finished and counts.
func ClosedLoop(callers int, operation func(ctx context.Context, caller int) error) func(context.Context, time.Duration) (Sample, error) {
	return func(ctx context.Context, d time.Duration) (Sample, error) {
		latencies := make([][]time.Duration, callers)
		begun := time.Now()
		end := begun.Add(d)
		g, ctx := errgroup.WithContext(ctx)
		for caller := range callers {
			g.Go(func() error {
				var took []time.Duration
				for now := time.Now(); now.Before(end); {
					if err := operation(ctx, caller); err != nil {
						return err
					}
					done := time.Now()
					took = append(took, done.Sub(now))
					now = done
				}
				latencies[caller] = took
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return Sample{}, err
		}
		s := Sample{Elapsed: time.Since(begun)}
		for _, took := range latencies {
			s.Latencies = append(s.Latencies, took...)
		}
		s.Units = len(s.Latencies)
		return s, nil
	}
}

// Echo is the load of unary gRPC calls: so many callers of the health check, on one connection.
func Echo(conn grpc.ClientConnInterface, callers int) Load {
	client := grpc_health_v1.NewHealthClient(conn)
	return Load{Figure: "echo", Unit: "calls/s", Run: ClosedLoop(callers, func(ctx context.Context, _ int) error {
		_, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		return err
	})}
}

// Dial connects to a server of this machine.
func Dial(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// DialService connects to a service as its clients do: by one connection, which carries the calls of all callers, under the
// published service config, which gives every call its deadline.
func DialService(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(purser.ServiceConfig))
}

const seed = 1

// newRand is the source of what one caller of a load does: the same in every run, and another for every caller and load.
func newRand(load string, caller int) *rand.ChaCha8 {
	var s [32]byte
	binary.BigEndian.PutUint64(s[:], seed)
	binary.BigEndian.PutUint64(s[8:], uint64(caller))
	copy(s[16:], load)
	return rand.NewChaCha8(s)
}

const syncedBytes = 512

// Sync is the load of small appends to a file in dir, each followed by fdatasync (where there is none, by fsync): what the
// disk allows to a writer that waits for it each time.
func Sync(dir string) Load {
	return Load{Figure: "fsync", Unit: "syncs/s", Run: func(ctx context.Context, d time.Duration) (_ Sample, err error) {
		name := vfs.Default.PathJoin(dir, "fsync")
		f, err := vfs.Default.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			return Sample{}, fmt.Errorf("make a file to sync: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close(), os.Remove(name)) }()
		block := make([]byte, syncedBytes)
		return ClosedLoop(1, func(ctx context.Context, _ int) error {
			if _, err := f.Write(block); err != nil {
				return err
			}
			return errors.Join(f.SyncData(), ctx.Err())
		})(ctx, d)
	}}
}
