package bench

import (
	"math"
	"slices"
	"time"
)

// Figure is one line of a report. One that is measured only to be a limit, or for comparison, has no limit and no bar.
type Figure struct {
	Name  string   `json:"figure"`
	Value float64  `json:"value"`
	Unit  string   `json:"unit"`
	Limit float64  `json:"limit,omitzero"`
	Ratio float64  `json:"ratio,omitzero"` // of value to limit
	Bar   float64  `json:"bar,omitzero"`   // that the ratio should reach
	Met   *bool    `json:"met,omitempty"`
	P50   *float64 `json:"p50_ms,omitempty"` // of a single operation, where one is what is counted
	P99   *float64 `json:"p99_ms,omitempty"`

	lowest, highest float64 // ratio of a single round
}

// Alone is the result as a figure without a limit.
func (r Result) Alone() Figure {
	f := Figure{Name: r.Load.Figure, Unit: r.Unit, Value: significant(r.rate())}
	if l := r.latencies(); len(l) > 0 {
		f.P50, f.P99 = percentile(l, 50), percentile(l, 99)
	}
	return f
}

// Against is the result as a figure that should reach so much of the limit, which was measured in the same rounds.
func (r Result) Against(limit Result, bar float64) Figure {
	f := r.Alone()
	f.Limit, f.Bar = significant(limit.rate()), bar
	f.Ratio = roundTo(f.Value/f.Limit, 3)
	met := f.Ratio >= bar
	f.Met = &met
	f.lowest = math.Inf(1)
	for i, s := range r.Samples {
		ratio := s.rate() / limit.Samples[i].rate()
		f.lowest, f.highest = min(f.lowest, ratio), max(f.highest, ratio)
	}
	return f
}

func (r Result) rate() float64 {
	var all Sample
	for _, s := range r.Samples {
		all.Units += s.Units
		all.Elapsed += s.Elapsed
	}
	return all.rate()
}

// latencies are those of all rounds, in order of size.
func (r Result) latencies() []time.Duration {
	var all []time.Duration
	for _, s := range r.Samples {
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
