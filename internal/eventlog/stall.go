package eventlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
)

const (
	// defaultSilence is how long a subscription may say nothing before the log is asked whether there is nothing to say.
	defaultSilence = 5 * time.Second
	// maxProbed bounds the events that one such look walks over.
	maxProbed = 4096
)

// pulse is what can be seen from outside of a subscription: a store that has stopped sending looks just like one that has
// nothing to send.
type pulse struct {
	mu    sync.Mutex
	after Position
	// quiet is since when it has waited for the store; zero while the subscriber is at work.
	quiet time.Time
}

func (p *pulse) waits(after Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.after, p.quiet = after, time.Now()
}

func (p *pulse) works() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.quiet = time.Time{}
}

func (p *pulse) read() (after Position, quiet time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.after, p.quiet
}

// watch calls stalled when the subscription has missed an event for as long as it may be silent, and returns then or when
// ctx ends. It compares with the last event that the filter lets through: the store's own events move the head of the log,
// too.
func (l *Log) watch(ctx context.Context, filter Filter, p *pulse, stalled func()) {
	ticker := time.NewTicker(l.silence)
	defer ticker.Stop()
	var suspect time.Time // the silence in which an event was missing at the last look
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		after, quiet := p.read()
		switch {
		case quiet.IsZero() || time.Since(quiet) < l.silence:
			continue
		case quiet.Equal(suspect):
			l.log.Warn("a subscription has stalled, and begins again", "after", after)
			stalled()
			return
		}
		probe, cancel := context.WithTimeout(ctx, l.silence)
		missed, err := l.anyAfter(probe, filter, after)
		cancel()
		if err == nil && missed { // an error is that of an outage, which ends the subscription by itself
			suspect = quiet
		}
	}
}

// anyAfter tells whether the log has an event that the filter lets through after a position. Where that takes too long to
// find out, it says yes.
func (l *Log) anyAfter(ctx context.Context, filter Filter, after Position) (bool, error) {
	return call(ctx, l.store, func(ctx context.Context, c *esdb.Client) (bool, error) {
		s, err := c.ReadAll(ctx, esdb.ReadAllOptions{Direction: esdb.Backwards, From: esdb.End{}}, maxProbed)
		if err != nil {
			return false, fmt.Errorf("read the end of the log: %w", err)
		}
		defer s.Close()
		for n := 0; ; n++ {
			e, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return n == maxProbed, nil
			}
			if err != nil {
				return false, fmt.Errorf("read the end of the log: %w", err)
			}
			o := e.OriginalEvent()
			if Position(o.Position.Commit) <= after {
				return false, nil
			}
			if filter.matches(o.StreamID) {
				return true, nil
			}
		}
	})
}
