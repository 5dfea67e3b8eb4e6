package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/purserhq/purser/internal/eventfile"
	"github.com/purserhq/purser/internal/eventlog"
)

// logHistory reads streams in the order of the log, as far as it goes now: else a stream that is read later might tell of
// what followed from events of another that were not read.
func logHistory(ctx context.Context, l *eventlog.Log, streams []string) ([]eventlog.Recorded, error) {
	head, err := l.Head(ctx)
	if err != nil {
		return nil, err
	}
	var events []eventlog.Recorded
	for _, s := range streams {
		for e, err := range l.Stream(ctx, s, 0) {
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", s, err)
			}
			if e.Position > head {
				break
			}
			events = append(events, e)
		}
	}
	slices.SortFunc(events, func(a, b eventlog.Recorded) int { return cmp.Compare(a.Position, b.Position) })
	return events, nil
}

// fileHistory reads streams from exports, and numbers their events in the order in which the log had them.
func fileHistory(stdin io.Reader, files, streams []string) ([]eventlog.Recorded, error) {
	var histories [][]eventlog.Recorded
	for _, name := range files {
		h, err := readExport(stdin, name, streams)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		histories = append(histories, h)
	}
	events, err := once(merged(histories))
	if err != nil {
		return nil, err
	}
	for i := range events {
		events[i].Position = eventlog.Position(i + 1)
	}
	return events, nil
}

func readExport(stdin io.Reader, name string, streams []string) ([]eventlog.Recorded, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, errors.Unwrap(err) // which names the file again
		}
		defer f.Close()
		in = f
	}
	var events []eventlog.Recorded
	for r := eventfile.NewReader(in, false); ; {
		switch e, err := r.Next(); {
		case errors.Is(err, io.EOF):
			return events, nil
		case err != nil:
			return nil, err
		case slices.Contains(streams, e.Stream):
			events = append(events, e)
		}
	}
}

// merged puts the events of several exports of one store into one order: each export is in that of the log, and between
// them the store's own clock decides, which is one for all streams.
func merged(histories [][]eventlog.Recorded) []eventlog.Recorded {
	var events []eventlog.Recorded
	for {
		next := -1
		for i, h := range histories {
			if len(h) > 0 && (next < 0 || h[0].Created.Before(histories[next][0].Created)) {
				next = i
			}
		}
		if next < 0 {
			return events
		}
		events = append(events, histories[next][0])
		histories[next] = histories[next][1:]
	}
}

// once leaves out what several exports hold, and refuses exports that hold different events at one place.
func once(events []eventlog.Recorded) ([]eventlog.Recorded, error) {
	type place struct {
		stream   string
		revision eventlog.Revision
	}
	ids := map[place]eventlog.Recorded{}
	var out []eventlog.Recorded
	for _, e := range events {
		at := place{e.Stream, e.Revision}
		switch other, again := ids[at]; {
		case !again:
			ids[at] = e
			out = append(out, e)
		case other.ID != e.ID:
			return nil, fmt.Errorf("the files are not of one event store: they hold two events at %s@%d", e.Stream, e.Revision)
		}
	}
	return out, nil
}

// whole refuses a history that lacks events, as no fold would make of it what the services did.
func whole(events []eventlog.Recorded) error {
	next := map[string]eventlog.Revision{}
	for _, e := range events {
		if e.Revision != next[e.Stream] {
			return fmt.Errorf("stream %s lacks its event %d, so it can't be folded", e.Stream, next[e.Stream])
		}
		next[e.Stream]++
	}
	return nil
}
