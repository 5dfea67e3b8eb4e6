package bench

import (
	"math"
	"slices"
	"time"
)

// Figure is one line of a report. One that is measured only to be a limit, or for comparison, has no limit and no bar.
type Figure struct {
	Name   string   `json:"figure"`
	Value  float64  `json:"value"`
	Unit   string   `json:"unit"`
	Limit  float64  `json:"limit,omitzero"`
	Ratio  float64  `json:"ratio,omitzero"`   // of value to limit
	Bar    float64  `json:"bar,omitzero"`     // that the ratio should reach
	AtMost bool     `json:"at_most,omitzero"` // less is better: the ratio should not exceed the bar
	Met    *bool    `json:"met,omitempty"`
	P50    *float64 `json:"p50_ms,omitempty"` // of a single operation, where one is what is counted
	P99    *float64 `json:"p99_ms,omitempty"`

	lowest, highest float64 // ratio of a single round
}

// Alone is the result as a figure without a limit.
func (r Result) Alone() Figure {
	f := Figure{Name: r.Load.Figure, Unit: r.Unit, Value: significant(rate(r.Samples...))}
	if l := latencies(r.Samples...); len(l) > 0 {
		f.P50, f.P99 = percentile(l, 50), percentile(l, 99)
	}
	return f
}

// Against is the result as a figure that should reach so much of the limit, which was measured in the same rounds: that of
// a path that leads through hops one after the other, or of a single hop.
func (r Result) Against(bar float64, hops ...Result) Figure {
	f := r.Alone()
	f.Limit, f.Bar = significant(serial(hops, func(hop Result) []Sample { return hop.Samples })), bar
	f.Ratio = roundTo(f.Value/f.Limit, 3)
	f.compare(len(r.Samples), func(i int) float64 {
		return rate(r.Samples[i]) / serial(hops, func(hop Result) []Sample { return hop.Samples[i : i+1] })
	})
	return f
}

// P99Against is the 99th percentile of the latencies as a figure that should be at most so many times another's.
func (r Result) P99Against(bar float64, other Result) Figure {
	p99 := func(samples ...Sample) float64 { return *percentile(latencies(samples...), 99) }
	f := Figure{Name: r.Load.Figure + " p99", Unit: "ms", Value: p99(r.Samples...), Limit: p99(other.Samples...), Bar: bar, AtMost: true}
	f.Ratio = roundTo(f.Value/f.Limit, 3)
	f.compare(len(r.Samples), func(i int) float64 { return p99(r.Samples[i]) / p99(other.Samples[i]) })
	return f
}

// P99Within is the 99th percentile of the latencies as a figure that should not exceed a goal, which stands as its limit.
func (r Result) P99Within(goal time.Duration) Figure {
	p99 := func(samples ...Sample) float64 { return *percentile(latencies(samples...), 99) }
	f := r.Alone()
	f.Value, f.Unit, f.Limit, f.Bar, f.AtMost = *f.P99, "ms", float64(goal)/float64(time.Millisecond), 1, true
	f.Ratio = roundTo(f.Value/f.Limit, 3)
	f.compare(len(r.Samples), func(i int) float64 { return p99(r.Samples[i]) / f.Limit })
	return f
}

// compare holds the ratio against the bar, and finds its spread over the rounds.
func (f *Figure) compare(rounds int, ratio func(round int) float64) {
	met := f.Ratio >= f.Bar
	if f.AtMost {
		met = f.Ratio <= f.Bar
	}
	f.Met = &met
	f.lowest = math.Inf(1)
	for i := range rounds {
		f.lowest, f.highest = min(f.lowest, ratio(i)), max(f.highest, ratio(i))
	}
}

// Slower is the one of two results that has the lower rate.
func Slower(a, b Result) Result {
	if rate(a.Samples...) < rate(b.Samples...) {
		return a
	}
	return b
}

// serial is the rate of a path through hops of which each takes its time.
func serial(hops []Result, samples func(Result) []Sample) float64 {
	seconds := 0.0
	for _, hop := range hops {
		seconds += 1 / rate(samples(hop)...)
	}
	return 1 / seconds
}

// rate is what was done in a second, in all samples together.
func rate(samples ...Sample) float64 {
	var all Sample
	for _, s := range samples {
		all.Units += s.Units
		all.Elapsed += s.Elapsed
	}
	return float64(all.Units) / all.Elapsed.Seconds()
}

// latencies are those of all samples, in order of size.
func latencies(samples ...Sample) []time.Duration {
	var all []time.Duration
	for _, s := range samples {
		all = append(all, s.Latencies...)
	}
	slices.Sort(all)
	return all
}

// percentile is the least of the sorted durations, in ms, that so many percent of them don't exceed.
func percentile(sorted []time.Duration, percent int) *float64 {
	i := max((len(sorted)*percent+99)/100-1, 0)
	ms := roundTo(float64(sorted[i])/float64(time.Millisecond), 3)
	return &ms
}

// significant drops the digits of a rate that mean nothing.
func significant(rate float64) float64 {
	if rate < 100 {
		return roundTo(rate, 2)
	}
	return math.Round(rate)
}

func roundTo(v float64, digits int) float64 {
	scale := math.Pow10(digits)
	return math.Round(v*scale) / scale
}
