package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/purserhq/purser/internal/bench"
)

const (
	// maxBenchTime bounds a whole bench.
	maxBenchTime = 10 * time.Minute
	// benchCallers is how many callers at once a bench has, and writers; benchCrowd, how many want the same.
	benchCallers = 64
	benchCrowd   = 256
)

func benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure this build on this machine, each figure beside its limit",
		Args:  cobra.NoArgs,
		RunE:  group,
	}
	cmd.AddCommand(benchAppendCommand(), benchReadCommand(), benchPlaceOrderCommand(), benchHotProductCommand(),
		benchQueryCommand(), benchLagCommand(), benchRebuildCommand())
	return cmd
}

// benchFlags are the flags of every bench.
type benchFlags struct {
	dataDir string
	plan    bench.Plan
	json    bool
}

// shortRounds are for loads that are the same at any moment.
var shortRounds = bench.Plan{Rounds: 20, Each: 500 * time.Millisecond}

// newBench is the command of a bench, with how long it measures usually: measure starts what the bench needs and says what
// came of it.
func newBench(name, short string, usual bench.Plan, measure func(ctx context.Context, b *benchRun) ([]bench.Figure, error)) *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(atLeast(1, "rounds", f.plan.Rounds), atLeast(time.Millisecond, "round-time", f.plan.Each)); err != nil {
				return err
			}
			return runBench(cmd, f, measure)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.dataDir, "data-dir", ".", "directory on the disk to measure; what the bench writes there it removes again")
	fs.IntVar(&f.plan.Rounds, "rounds", usual.Rounds, "rounds to measure, after one that warms up")
	fs.DurationVar(&f.plan.Each, "round-time", usual.Each, "how long each thing is measured in a round")
	fs.BoolVar(&f.json, "json", false, "print the figures as one JSON object")
	return cmd
}

// benchRun is a bench that is running. What it starts it gives to serve, and to the process's closers.
type benchRun struct {
	*process
	serve func(func(context.Context) error)
	plan  bench.Plan
	dir   string // empty when the bench starts
}

// runBench measures in a directory that is there for that long only, and reports.
func runBench(cmd *cobra.Command, f benchFlags, measure func(context.Context, *benchRun) ([]bench.Figure, error)) error {
	log, err := newLogger(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(cmd.Context(), maxBenchTime, fmt.Errorf("the bench took longer than %s", maxBenchTime))
	defer cancel()
	dir, err := os.MkdirTemp(f.dataDir, "purser-bench-")
	if err != nil {
		return fmt.Errorf("make a directory for the bench: %w", err)
	}
	b := &benchRun{process: newProcess(log), plan: f.plan, dir: dir}
	report := bench.Report{Bench: cmd.Name()}
	report.Machine, err = bench.Describe(ctx, buildVersion(), dir)
	if err == nil {
		report.Figures, err = b.run(ctx, measure)
	}
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		return err
	}
	if f.json {
		return report.WriteJSON(cmd.OutOrStdout())
	}
	return report.WriteTable(cmd.OutOrStdout())
}

// run measures, and stops all that was started for it. The servers outlive the measurement, also one that is interrupted:
// the official client does not take it well if they don't.
func (b *benchRun) run(ctx context.Context, measure func(context.Context, *benchRun) ([]bench.Figure, error)) ([]bench.Figure, error) {
	measuring, stopMeasuring := context.WithCancel(ctx)
	defer stopMeasuring()
	serving, stopServers := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServers()
	servers, serving := errgroup.WithContext(serving)
	context.AfterFunc(serving, stopMeasuring)
	b.serve = func(server func(context.Context) error) {
		servers.Go(func() error { return server(serving) })
	}
	figures, err := measure(measuring, b)
	b.close()
	stopServers()
	if failed := servers.Wait(); failed != nil {
		return nil, failed // whatever else failed, failed because of it
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return figures, err
}
