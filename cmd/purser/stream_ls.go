package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/eventlog"
)

// streamSummary is one line of a list of streams.
type streamSummary struct {
	Stream       string            `json:"stream"`
	Events       int               `json:"events"`
	LastRevision eventlog.Revision `json:"lastRevision"`
	LastTime     time.Time         `json:"lastTime"`
	Deleted      bool              `json:"deleted,omitempty"`
}

func streamLsCommand() *cobra.Command {
	var t streamTool
	list := streamList{streams: make(map[string]*streamSummary)}
	var asJSON, system bool
	var prefix string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List streams by name, with their number of events and the time of the last one, from a walk of the whole log",
		Long: "List streams by name, with their number of events and the time of the last one.\n\n" +
			"An event store has no index of streams, so this reads the whole log. It remembers a line for each stream, at most twice --limit of them.\n" +
			"Events that were truncated or deleted count until the store has discarded them.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := atLeast(0, "limit", list.limit); err != nil {
				return err
			}
			return t.run(cmd, func(ctx context.Context, l *eventlog.Log) error {
				err := walk(ctx, cmd, l, func(e eventlog.Recorded) error {
					if strings.HasPrefix(e.Stream, prefix) && (system || !eventlog.IsSystem(e.Stream)) {
						list.add(e)
					}
					return nil
				})
				if err != nil {
					return interrupted(ctx, err, "nothing is listed")
				}
				streams := list.sorted()
				if list.left {
					note(cmd.ErrOrStderr(), "there are more streams; --limit 0 lists all")
				}
				return printStreams(cmd.OutOrStdout(), streams, asJSON)
			})
		},
	}
	t.addEventstore(cmd.Flags())
	cmd.Flags().StringVar(&prefix, "prefix", "", "only streams whose names begin so")
	cmd.Flags().IntVar(&list.limit, "limit", 1000, "list the first so many streams by name; 0: all")
	cmd.Flags().BoolVar(&system, "system", false, "list the event store's own streams too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return cmd
}

// streamList collects summaries of the first streams by name.
type streamList struct {
	limit   int // 0: all
	streams map[string]*streamSummary
	// beyond is the first name that is left out for good, where left.
	beyond string
	left   bool
}

func (s *streamList) add(e eventlog.Recorded) {
	if s.left && e.Stream >= s.beyond {
		return
	}
	sum, ok := s.streams[e.Stream]
	if !ok {
		sum = &streamSummary{Stream: e.Stream, LastRevision: eventlog.NoStream}
		s.streams[e.Stream] = sum
	}
	if e.IsTombstone() {
		sum.Deleted = true
		return
	}
	sum.Events++
	sum.LastRevision, sum.LastTime = e.Revision, occurredAt(e)
	if s.limit > 0 && len(s.streams) > 2*s.limit {
		s.trim()
	}
}

// trim leaves out what is beyond the limit: names only ever come in between, so it can't come back.
func (s *streamList) trim() {
	names := slices.Sorted(maps.Keys(s.streams))
	s.beyond, s.left = names[s.limit], true
	for _, name := range names[s.limit:] {
		delete(s.streams, name)
	}
}

func (s *streamList) sorted() []*streamSummary {
	if s.limit > 0 && len(s.streams) > s.limit {
		s.trim()
	}
	return slices.SortedFunc(maps.Values(s.streams), func(a, b *streamSummary) int { return strings.Compare(a.Stream, b.Stream) })
}

// occurredAt is when an event happened; of an event that does not say so, when it was stored.
func occurredAt(e eventlog.Recorded) time.Time {
	var m struct {
		OccurredAt time.Time `json:"occurredAt"`
	}
	if err := json.Unmarshal(e.Metadata, &m); err != nil || m.OccurredAt.IsZero() {
		return e.Created
	}
	return m.OccurredAt
}

func printStreams(out io.Writer, streams []*streamSummary, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(out)
		for _, s := range streams {
			if err := enc.Encode(s); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STREAM\tEVENTS\tLAST REVISION\tLAST EVENT")
	for _, s := range streams {
		last := s.LastTime.UTC().Format(time.RFC3339)
		if s.Deleted {
			last += " (deleted)"
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\n", s.Stream, s.Events, s.LastRevision, last)
	}
	return w.Flush()
}
