package eventstore

import (
	"bytes"
	"regexp"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/streams"

	"github.com/purserhq/purser/services/eventstore/storage"
)

const defaultWindow = 32 // events, as EventStoreDB

// filter chooses events by stream name or event type. A nil filter takes all.
type filter struct {
	byType   bool
	pattern  *regexp.Regexp // if nil, the prefixes count
	prefixes [][]byte
	interval int // events considered from one checkpoint to the next
}

func parseFilter(opts *streams.ReadReq_Options_FilterOptions) (*filter, error) {
	f := &filter{}
	expr := opts.GetStreamIdentifier()
	if t := opts.GetEventType(); t != nil {
		f.byType, expr = true, t
	}
	switch {
	case expr.GetRegex() != "":
		var err error
		if f.pattern, err = regexp.Compile(expr.GetRegex()); err != nil {
			return nil, invalid("the filter's pattern is not one that this server takes: " + err.Error())
		}
	case len(expr.GetPrefix()) > 0:
		for _, p := range expr.GetPrefix() {
			f.prefixes = append(f.prefixes, []byte(p))
		}
	default:
		return nil, invalid("a filter needs a pattern or prefixes")
	}
	switch w := opts.GetWindow().(type) {
	case *streams.ReadReq_Options_FilterOptions_Max:
		f.interval = int(w.Max) * int(opts.GetCheckpointIntervalMultiplier())
	case *streams.ReadReq_Options_FilterOptions_Count:
		f.interval = defaultWindow * int(opts.GetCheckpointIntervalMultiplier())
	default:
		return nil, invalid("a filter needs a window")
	}
	return f, nil
}

func (f *filter) matches(rec *storage.Record) bool {
	if f == nil {
		return true
	}
	name := rec.Stream
	if f.byType {
		name = rec.Type
	}
	if f.pattern != nil {
		return f.pattern.Match(name)
	}
	for _, p := range f.prefixes {
		if bytes.HasPrefix(name, p) {
			return true
		}
	}
	return false
}
