package bench

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// counted is a load of so many units a second that notes its runs.
func counted(name string, units int, runs *[]string) Load {
	return Load{Figure: name, Unit: "units/s", Run: func(context.Context, time.Duration) (Sample, error) {
		*runs = append(*runs, name)
		return Sample{Units: units, Elapsed: time.Second, Latencies: []time.Duration{time.Millisecond}}, nil
	}}
}

func TestALoadAndItsLimitAreMeasuredByTurns(t *testing.T) {
	var runs []string
	results, err := Plan{Rounds: 2, Each: time.Second}.Run(t.Context(), counted("limit", 200, &runs), counted("load", 150, &runs))
	if err != nil {
		t.Fatal(err)
	}
	// The first round is the warm-up.
	if got, want := strings.Join(runs, " "), "limit load load limit limit load"; got != want {
		t.Errorf("measured %s, want %s", got, want)
	}
	limit, load := results[0], results[1]
	if len(limit.Samples) != 2 || len(load.Samples) != 2 {
		t.Fatalf("%d and %d samples, want 2 of each", len(limit.Samples), len(load.Samples))
	}
	f := load.Against(0.8, limit)
	if f.Name != "load" || f.Value != 150 || f.Limit != 200 || f.Ratio != 0.75 || f.Bar != 0.8 || *f.Met || *f.P50 != 1 || *f.P99 != 1 {
		t.Errorf("figure %+v", f)
	}
	if f := load.Against(0.75, limit); !*f.Met {
		t.Errorf("a ratio at the bar doesn't meet it: %+v", f)
	}
}

func TestTheRatioIsThatOfAllRoundsTogether(t *testing.T) {
	load := Result{Samples: []Sample{{Units: 10, Elapsed: time.Second}, {Units: 90, Elapsed: time.Second}}}
	limit := Result{Samples: []Sample{{Units: 100, Elapsed: time.Second}, {Units: 100, Elapsed: time.Second}}}
	if f := load.Against(0.8, limit); f.Ratio != 0.5 || f.lowest != 0.1 || f.highest != 0.9 {
		t.Errorf("ratio %v in %v to %v, want 0.5 in 0.1 to 0.9", f.Ratio, f.lowest, f.highest)
	}
}

func TestTheLimitOfAPathIsThatOfItsHopsInARow(t *testing.T) {
	of := func(units ...int) (r Result) {
		for _, n := range units {
			r.Samples = append(r.Samples, Sample{Units: n, Elapsed: time.Second})
		}
		return r
	}
	f := of(60, 60).Against(0.75, of(200, 100), of(100, 200)) // 150 and 150 of each in all, 200 and 100 in a round
	if f.Limit != 75 || f.Ratio != 0.8 || roundTo(f.lowest, 3) != 0.9 || roundTo(f.highest, 3) != 0.9 || !*f.Met {
		t.Errorf("figure %+v in %v to %v", f, f.lowest, f.highest)
	}
}

func TestALatencyShouldStayUnderItsBar(t *testing.T) {
	of := func(ms ...int) (r Result) {
		for _, n := range ms {
			r.Samples = append(r.Samples, Sample{Units: 1, Elapsed: time.Second, Latencies: []time.Duration{time.Duration(n) * time.Millisecond}})
		}
		return r
	}
	load, other := of(10, 30), of(5, 10)
	load.Load.Figure = "load"
	f := load.P99Against(3, other)
	if f.Name != "load p99" || f.Unit != "ms" || f.Value != 30 || f.Limit != 10 || f.Ratio != 3 || !*f.Met || f.lowest != 2 || f.highest != 3 {
		t.Errorf("figure %+v in %v to %v", f, f.lowest, f.highest)
	}
	if f := load.P99Against(2.9, other); *f.Met {
		t.Errorf("a ratio above the bar meets it: %+v", f)
	}
}

func TestALatencyShouldStayWithinItsGoal(t *testing.T) {
	load := Result{Load: Load{Figure: "load"}}
	for _, ms := range []time.Duration{10, 30} {
		load.Samples = append(load.Samples, Sample{Units: 1, Elapsed: time.Second, Latencies: []time.Duration{ms * time.Millisecond}})
	}
	f := load.P99Within(40 * time.Millisecond)
	if f.Name != "load" || f.Unit != "ms" || f.Value != 30 || f.Limit != 40 || f.Ratio != 0.75 || !*f.Met || f.lowest != 0.25 || f.highest != 0.75 {
		t.Errorf("figure %+v in %v to %v", f, f.lowest, f.highest)
	}
	if f := load.P99Within(20 * time.Millisecond); *f.Met {
		t.Errorf("a latency above the goal meets it: %+v", f)
	}
}

// Operations begin when they are due although none has ended, and a late start counts as theirs.
func TestAnOpenLoopWaitsForNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := make([]time.Duration, 10)
		start := time.Now()
		s, err := OpenLoop(10, func(_ context.Context, n int) (time.Duration, error) {
			began[n] = time.Since(start)
			time.Sleep(5 * time.Second)
			return time.Duration(n) * time.Second, nil
		})(t.Context(), time.Second)
		if err != nil || s.Units != 10 || s.Elapsed != 900*time.Millisecond+5*time.Second {
			t.Fatalf("%d in %s, %v", s.Units, s.Elapsed, err)
		}
		for n, at := range began {
			if at != time.Duration(n)*100*time.Millisecond || s.Latencies[n] != time.Duration(n)*time.Second {
				t.Errorf("operation %d began after %s and took %s", n, at, s.Latencies[n])
			}
		}
	})
	broken := errors.New("broken")
	if _, err := OpenLoop(1, func(context.Context, int) (time.Duration, error) { return 0, broken })(t.Context(), time.Hour); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestPercentiles(t *testing.T) {
	var sorted []time.Duration
	for i := range 200 {
		sorted = append(sorted, time.Duration(i+1)*time.Millisecond)
	}
	if p50, p99 := *percentile(sorted, 50), *percentile(sorted, 99); p50 != 100 || p99 != 198 {
		t.Errorf("p50 %v, p99 %v, want 100 and 198", p50, p99)
	}
	if one := *percentile(sorted[:1], 99); one != 1 {
		t.Errorf("p99 of one is %v", one)
	}
}

func TestAFailureEndsTheMeasurement(t *testing.T) {
	broken := errors.New("broken")
	load := Load{Figure: "load", Run: ClosedLoop(4, func(ctx context.Context, caller int) error {
		if caller == 1 {
			return broken
		}
		<-ctx.Done() // the others are told
		return ctx.Err()
	})}
	if _, err := (Plan{Rounds: 1, Each: time.Hour}).Run(t.Context(), load); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	var none []string
	if _, err := (Plan{Rounds: 1, Each: time.Hour}).Run(t.Context(), counted("nothing", 0, &none)); err == nil {
		t.Error("a measurement of nothing succeeded")
	}
}

func TestEventsAreTheSameInEveryRun(t *testing.T) {
	a, b, other := newEvents(7), newEvents(7), newEvents(8)
	x, y := a.next(), b.next()
	if x.EventID != y.EventID || !slices.Equal(x.Data, y.Data) || x.EventID == other.next().EventID {
		t.Error("events differ where they should not, or don't where they should")
	}
	if len(x.Data)+len(x.Metadata) != 300 {
		t.Errorf("%d bytes", len(x.Data)+len(x.Metadata))
	}
}
