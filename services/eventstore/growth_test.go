package eventstore_test

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"

	"github.com/purserhq/purser/services/eventstore/storage"
)

const (
	userEvents = 4 // of a fresh store
	fewEvents  = 100_000
	manyEvents = 1_000_000
	maxStart   = 2 * time.Second
	maxGrowth  = 40 // MB of memory, from few events to many, 270 MB more: the caches fill
)

// Neither the time that a start takes nor memory grows with the number of events.
func TestGrowth(t *testing.T) {
	if !soak() {
		t.Skip("a million events; set " + soakVariable)
	}
	dir := t.TempDir()
	few := grow(t, dir, 0, fewEvents)
	many := grow(t, dir, fewEvents, manyEvents)
	t.Logf("%d events: %v", fewEvents, few)
	t.Logf("%d events: %v", manyEvents, many)
	for what, took := range map[string]time.Duration{"after a clean end": many.start, "after a kill": many.startAfterKill} {
		if took > maxStart {
			t.Errorf("a start %s takes %v", what, took)
		}
	}
	for what, grew := range map[string]int{
		"under appends": many.appending - few.appending,
		"after a start": many.started - few.started,
		"under reads":   many.reading - few.reading,
	} {
		if grew > maxGrowth {
			t.Errorf("memory %s grows by %d MB", what, grew)
		}
	}
	begun := time.Now()
	report, err := storage.Verify(dir, slog.New(slog.DiscardHandler), nil)
	if err != nil || !report.Sound() || report.Events != manyEvents+userEvents {
		t.Errorf("verify: %v, %+v", err, report)
	}
	t.Logf("verify takes %v", time.Since(begun).Round(time.Millisecond))
}

// size is what a store of some size costs; memory is what the process holds, in MB.
type size struct {
	start, startAfterKill       time.Duration
	appending, started, reading int
}

func (s size) String() string {
	return fmt.Sprintf("start %v, after a kill %v; memory under appends %d MB, after a start %d MB, under reads %d MB",
		s.start.Round(time.Millisecond), s.startAfterKill.Round(time.Millisecond), s.appending, s.started, s.reading)
}

// grow appends events to a store in processes of its own, and measures them.
func grow(t *testing.T, dir string, from, to int) (s size) {
	p := startProcess(t, dir)
	fill(t, p, from, to)
	s.appending = p.memory(t)
	p.kill()

	p, s.startAfterKill = timedStart(t, dir)
	p.stop(t)
	p, s.start = timedStart(t, dir)
	s.started = p.memory(t)
	c := connect(t, p.url())
	r, err := c.ReadAll(t.Context(), esdb.ReadAllOptions{From: esdb.Start{}}, math.MaxUint64)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n := 0
	for ; ; n++ {
		if _, err := r.Recv(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n != to+userEvents {
		t.Fatalf("%d events of %d", n, to+userEvents)
	}
	s.reading = p.memory(t)
	p.stop(t)
	return s
}

func timedStart(t *testing.T, dir string) (*serverProcess, time.Duration) {
	begun := time.Now()
	p := startProcess(t, dir)
	return p, time.Since(begun)
}

// fill appends events of some 300 bytes, ten to a stream.
func fill(t *testing.T, p *serverProcess, from, to int) {
	const writers, each = 8, 10
	streams := make(chan int, writers)
	var wg sync.WaitGroup
	for range writers {
		c := connect(t, p.url())
		wg.Go(func() {
			for n := range streams {
				events := make([]esdb.EventData, each)
				for i := range events {
					events[i] = sizedEvent()
				}
				appendTo(t, c, fmt.Sprint("grow-", n), esdb.NoStream{}, events...)
			}
		})
	}
	for n := from; n < to; n += each {
		streams <- n
	}
	close(streams)
	wg.Wait()
}

// sizedEvent has some 200 bytes of data and 80 of metadata.
func sizedEvent() esdb.EventData {
	return esdb.EventData{
		EventID: uuid.New(), EventType: "Happened", ContentType: esdb.ContentTypeJson,
		Data: []byte(`{"pad":"` + strings.Repeat("x", 200) + `"}`), Metadata: []byte(`{"pad":"` + strings.Repeat("y", 80) + `"}`),
	}
}

// memory is what the process holds now, in MB.
func (p *serverProcess) memory(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Skip("memory is read from /proc: ", err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kB, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kB / 1024
}
