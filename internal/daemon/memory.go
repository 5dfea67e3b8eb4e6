package daemon

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// gcPercent lets the heap grow to several times what lives in it before it is collected: little lives between two calls,
	// so at Go's own 100 a busy service would collect all the time.
	gcPercent = 800
	// memoryShare is the part of the container's memory that Go may fill before it collects harder instead; the rest is for
	// what Go does not count.
	memoryShare = 0.9
)

// TuneMemory trades memory for processor time within what the container allows. An operator's GOGC or GOMEMLIMIT wins.
func TuneMemory() error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	container := memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)
	if _, err := memlimit.SetGoMemLimitWithOpts(memlimit.WithProvider(container), memlimit.WithRatio(memoryShare)); err != nil {
		return fmt.Errorf("find out how much memory there is: %w", err)
	}
	return nil
}
