package eventlog

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Filter chooses events by the names of their streams. The zero value chooses all.
type Filter struct {
	// Prefixes: the name begins with one of them.
	Prefixes []string
	// Regexp, where it is not empty, takes the place of Prefixes: it matches some part of the name. The store reads it, and
	// what every store can read is the syntax of package regexp.
	Regexp string

	compiled *regexp.Regexp // Regexp, where it is not empty
}

// matches tells whether the filter lets the events of a stream through.
func (f *Filter) matches(stream string) bool {
	if f.compiled != nil {
		return f.compiled.MatchString(stream)
	}
	return slices.ContainsFunc(f.Prefixes, func(p string) bool { return strings.HasPrefix(stream, p) })
}

// ofCategories is the filter for all streams of some categories.
func ofCategories(categories []string) Filter {
	var f Filter
	for _, c := range categories {
		f.Prefixes = append(f.Prefixes, StreamName(c, ""))
	}
	return f
}

// Follow is [Log.Subscribe] for streams of any name. It also fails for a regular expression that can't be read.
func (l *Log) Follow(ctx context.Context, filter Filter, after Position, deliver func(context.Context, Delivery) error) error {
	if filter.Regexp == "" && len(filter.Prefixes) == 0 {
		filter.Regexp = "^"
	}
	if filter.Regexp != "" {
		filter.Prefixes = nil
		var err error
		if filter.compiled, err = regexp.Compile(filter.Regexp); err != nil {
			return fmt.Errorf("filter: %w", err)
		}
	}
	return l.subscribe(ctx, filter, after, deliver)
}
