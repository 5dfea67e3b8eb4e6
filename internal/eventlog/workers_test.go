package eventlog

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestWorkersAreUsedAgainAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which fails where a goroutine is left behind
		w := newWorkers()
		release := make(chan struct{})
		var ran atomic.Int64
		run := func() {
			w.run(func() {
				<-release
				ran.Add(1)
			})
		}
		for range 2 * maxIdle {
			run()
		}
		close(release)
		synctest.Wait()
		if ran.Load() != 2*maxIdle || len(w.idle) != maxIdle {
			t.Errorf("%d calls ran, and %d goroutines are idle, want %d and %d", ran.Load(), len(w.idle), 2*maxIdle, maxIdle)
		}
		release = make(chan struct{})
		run()
		synctest.Wait()
		if len(w.idle) != maxIdle-1 {
			t.Errorf("with one call, %d goroutines are idle, want %d", len(w.idle), maxIdle-1)
		}
		w.close() // also ends the one that runs a call
		close(release)
	})
}
