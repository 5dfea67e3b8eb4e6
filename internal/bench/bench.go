// Package bench measures, and says how a figure stands to a limit that was measured beside it.
//
// It promises ratios that hold on a shared machine: a figure and its limit are taken in one run, by turns, so that whatever
// else the machine does meets both. Absolute figures hold for the machine and the hour that they were taken on.
//
// How: a [Load] is something that can be done for a while. [Plan.Run] does every load once in each of several rounds, in an
// order that is turned around from one round to the next, after a round that only warms up. A figure is what was done in all
// rounds by the time it took; the ratio's spread over the rounds says how far to trust it. Whoever has a bench to add says
// what its loads are (load.go, eventstore.go have the common ones) and which of them is the limit of which.
package bench

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// Load is something that is measured.
type Load struct {
	Figure string // its name in the report
	Unit   string
	// Run does it for about so long. It ends early, with an error, when ctx ends.
	Run func(ctx context.Context, d time.Duration) (Sample, error)
}

// Sample is what one run of a load came to.
type Sample struct {
	Units     int // what was done, in the unit of the load
	Elapsed   time.Duration
	Latencies []time.Duration // of single operations; none where an operation is not what is counted
}

// Plan says how long to measure.
type Plan struct {
	Rounds int           // that count
	Each   time.Duration // of one load in one round
}

// Result is what a load came to, round by round.
type Result struct {
	Load
	Samples []Sample
}

// Run measures the loads. The results are in the order of the loads.
func (p Plan) Run(ctx context.Context, loads ...Load) ([]Result, error) {
	if p.Rounds < 1 || p.Each <= 0 {
		return nil, fmt.Errorf("%d rounds of %s measure nothing", p.Rounds, p.Each)
	}
	results := make([]Result, len(loads))
	for i, l := range loads {
		results[i].Load = l
	}
	const warmUp = 1
	for round := range warmUp + p.Rounds {
		for i := range results {
			if round%2 == 1 {
				i = len(results) - 1 - i
			}
			s, err := results[i].measure(ctx, p.Each)
			if err != nil {
				return nil, err
			}
			if round >= warmUp {
				results[i].Samples = append(results[i].Samples, s)
			}
		}
	}
	return results, nil
}

func (r *Result) measure(ctx context.Context, d time.Duration) (Sample, error) {
	runtime.GC() // nobody pays for the garbage of the one before
	s, err := r.Run(ctx, d)
	switch {
	case ctx.Err() != nil:
		return s, ctx.Err()
	case err != nil:
		return s, fmt.Errorf("measure %s: %w", r.Load.Figure, err)
	case s.Units == 0 || s.Elapsed <= 0:
		return s, fmt.Errorf("measure %s: nothing was done", r.Load.Figure)
	}
	return s, nil
}
