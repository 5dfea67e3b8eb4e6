package daemon

import (
	"math"
	"os"
	"runtime/debug"
	"testing"
)

func TestAnOperatorsMemorySettingsWin(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(math.MaxInt64)
	t.Cleanup(func() { debug.SetGCPercent(percent); debug.SetMemoryLimit(limit) })
	settings := func() (int, int64) {
		percent := debug.SetGCPercent(100)
		debug.SetGCPercent(percent)
		return percent, debug.SetMemoryLimit(-1)
	}

	t.Setenv("GOGC", "50")
	t.Setenv("GOMEMLIMIT", "1GiB")
	if err := TuneMemory(); err != nil {
		t.Fatal(err)
	}
	if p, l := settings(); p != 100 || l != math.MaxInt64 {
		t.Errorf("percent %d and limit %d were set over the operator's", p, l)
	}
	os.Unsetenv("GOGC")
	os.Unsetenv("GOMEMLIMIT")
	if err := TuneMemory(); err != nil {
		t.Fatal(err)
	}
	if p, l := settings(); p != gcPercent || l == math.MaxInt64 || l <= 0 {
		t.Errorf("percent %d and limit %d without settings", p, l)
	}
}
