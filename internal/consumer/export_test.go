package consumer

import "time"

// SetLimits sets for how long a parked key may be folded, and how many events may be folded for a batch, and of a sample.
func (c *Consumer) SetLimits(unpark time.Duration, inBatch, sampled int) {
	c.limits = limits{unpark, inBatch, sampled}
}
