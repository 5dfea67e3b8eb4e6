package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/purserhq/purser/internal/bench"
)

// runBenchCommand runs a bench in so tiny a size that its figures mean nothing.
func runBenchCommand(t *testing.T, ctx context.Context, dir string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := rootCommand()
	cmd.SetOut(&out)
	cmd.SetErr(t.Output())
	cmd.SetArgs(append([]string{"bench", "--data-dir", dir}, args...))
	err := cmd.ExecuteContext(ctx)
	if left, rerr := os.ReadDir(dir); rerr != nil || len(left) > 0 {
		t.Errorf("the bench left %v behind (%v)", left, rerr)
	}
	return out.String(), err
}

func TestBenchesReportTheirFiguresBesideTheLimits(t *testing.T) {
	for _, tc := range []struct {
		args    []string
		bars    map[string]float64
		figures []string
	}{
		{[]string{"append"}, map[string]float64{"append": 0.8}, []string{"append", "null append", "echo", "fsync"}},
		{[]string{"read", "--events", "300"}, map[string]float64{"read": 0.8}, []string{"read", "null read", "echo", "fsync"}},
		{[]string{"place-order"}, map[string]float64{"place-order": 0.75}, []string{"place-order", "append", "echo", "fsync"}},
		{
			[]string{"hot-product", "--products", "20"}, map[string]float64{"hot-product": 1, "hot-product p99": 3},
			[]string{"hot-product", "hot-product p99", "spread", "echo", "fsync"},
		},
		{[]string{"rebuild", "--orders", "200"}, map[string]float64{"rebuild": 0.7}, []string{"rebuild", "read", "copy", "fsync"}},
		{[]string{"query", "--orders", "200"}, map[string]float64{"query": 0.8}, []string{"query", "select", "echo", "fsync"}},
		{
			[]string{"lag", "--rate", "50", "--peak-rate", "150"}, map[string]float64{"lag at 50/s": 1, "lag at 150/s": 1},
			[]string{"lag at 50/s", "lag at 150/s", "echo", "fsync"},
		},
	} {
		t.Run(tc.args[0], func(t *testing.T) {
			out, err := runBenchCommand(t, t.Context(), t.TempDir(), append(tc.args, "--json", "--rounds", "2", "--round-time", "20ms")...)
			if err != nil && strings.Contains(err.Error(), "pgbench is not installed") {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			var r bench.Report
			d := json.NewDecoder(bytes.NewBufferString(out))
			d.DisallowUnknownFields()
			if err := d.Decode(&r); err != nil || d.More() {
				t.Fatalf("not one report: %v\n%s", err, out)
			}
			if r.Bench != tc.args[0] {
				t.Errorf("bench %q, want %q", r.Bench, tc.args[0])
			}
			checkMachine(t, r.Machine)
			var names []string
			for _, f := range r.Figures {
				names = append(names, f.Name)
				checkFigure(t, f, tc.bars[f.Name])
			}
			if !slices.Equal(names, tc.figures) {
				t.Errorf("figures %q, want %q", names, tc.figures)
			}
		})
	}
}

func checkMachine(t *testing.T, m bench.Machine) {
	t.Helper()
	if m.Cores < 1 || m.MemoryBytes == 0 || m.Disk == "" || m.OS == "" || m.GOGC == 0 || m.GOMemLimitBytes == 0 || m.Versions["go"] == "" {
		t.Errorf("the machine is not described: %+v", m)
	}
}

func checkFigure(t *testing.T, f bench.Figure, bar float64) {
	t.Helper()
	if f.Value <= 0 || f.Unit == "" || f.Bar != bar || (f.Met != nil) != (bar > 0) {
		t.Errorf("%+v, want a value and bar %v", f, bar)
	}
	if bar == 0 {
		return
	}
	reached := f.Ratio >= bar
	if f.AtMost {
		reached = f.Ratio <= bar
	}
	if math.Abs(f.Ratio-f.Value/f.Limit) > 0.001 || *f.Met != reached {
		t.Errorf("%+v: the ratio is not that of value to limit, or not compared with the bar", f)
	}
}

func TestABenchOfNothingIsRefused(t *testing.T) {
	for _, args := range [][]string{{"read", "--events", "0"}, {"hot-product", "--products", "0"}, {"query", "--orders", "0"}, {"lag", "--rate", "0"}, {"place-order", "--rounds", "0"}} {
		if out, err := runBenchCommand(t, t.Context(), t.TempDir(), args...); err == nil || out != "" {
			t.Errorf("%q: got %v and %q", args, err, out)
		}
	}
}

func TestABenchPrintsATable(t *testing.T) {
	out, err := runBenchCommand(t, t.Context(), t.TempDir(), "append", "--rounds", "1", "--round-time", "20ms")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"FIGURE", "null append", "fsync", "cores"} {
		if !bytes.Contains([]byte(out), []byte(want)) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestABenchThatIsInterruptedCleansUp(t *testing.T) {
	for _, name := range []string{"append", "hot-product", "query"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			ctx, interrupt := context.WithCancel(t.Context())
			var interrupter sync.WaitGroup
			defer interrupter.Wait()
			defer interrupt()
			interrupter.Go(func() {
				defer interrupt()
				for ctx.Err() == nil { // until the bench has begun
					if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
						return
					}
					time.Sleep(time.Millisecond)
				}
			})
			if out, err := runBenchCommand(t, ctx, dir, name, "--round-time", "1h"); !errors.Is(err, context.Canceled) || out != "" {
				t.Errorf("got %v and %q, want only that it was cancelled", err, out)
			}
		})
	}
}
