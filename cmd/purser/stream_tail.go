package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/eventlog"
)

func streamTailCommand() *cobra.Command {
	var t streamTool
	var p eventPrinter
	var filter, from string
	var system bool
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show events as they are appended, until Ctrl-C; personal data is masked",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			streams, err := streamFilter(filter, system)
			if err != nil {
				return err
			}
			return t.run(cmd, func(ctx context.Context, l *eventlog.Log) error {
				after, err := startOf(ctx, l, from)
				if err != nil {
					return err
				}
				p.out, p.schema = cmd.OutOrStdout(), t.schema
				away := false
				return l.Follow(ctx, streams, after, func(_ context.Context, d eventlog.Delivery) error {
					if d.Interrupted != nil && !away {
						note(cmd.ErrOrStderr(), "the event store is away, and is waited for: %v", d.Interrupted)
					}
					away = d.Interrupted != nil
					if d.Event == nil || !system && eventlog.IsSystem(d.Event.Stream) {
						return nil
					}
					return p.print(*d.Event)
				})
			})
		},
	}
	t.addEventstore(cmd.Flags())
	cmd.Flags().StringVar(&filter, "filter", "", "only streams whose names begin so, as in order-, or match a regular expression, as in /^(order|payment)-7$/")
	cmd.Flags().StringVar(&from, "from", "end", "where to begin: start, end, or after a position in the log")
	cmd.Flags().BoolVar(&system, "system", false, "show the event store's own streams too")
	cmd.Flags().BoolVar(&p.personal, "personal", false, personalUsage)
	cmd.Flags().BoolVar(&p.json, "json", false, "print JSON lines")
	return cmd
}

// startOf reads a place in the log.
func startOf(ctx context.Context, l *eventlog.Log, from string) (eventlog.Position, error) {
	switch from {
	case "start":
		return 0, nil
	case "end":
		return l.Head(ctx)
	}
	n, err := strconv.ParseInt(from, 10, 64)
	if err != nil || n < 0 {
		return 0, errors.New("--from must be start, end or a position in the log")
	}
	head, err := l.Head(ctx)
	if err == nil && eventlog.Position(n) > head {
		return 0, fmt.Errorf("--from %d is beyond the end of the log, %d", n, head)
	}
	return eventlog.Position(n), err
}

// streamFilter reads a prefix, or a regular expression between slashes.
func streamFilter(text string, system bool) (eventlog.Filter, error) {
	expression, isExpression := strings.CutPrefix(text, "/")
	expression, closed := strings.CutSuffix(expression, "/")
	switch {
	case isExpression && closed:
		if _, err := regexp.Compile(expression); err != nil {
			return eventlog.Filter{}, fmt.Errorf("--filter: %w", err)
		}
		return eventlog.Filter{Regexp: expression}, nil
	case isExpression:
		return eventlog.Filter{}, fmt.Errorf("--filter %s begins as a regular expression, but doesn't end with a slash as one does", text)
	case text != "":
		return eventlog.Filter{Prefixes: []string{text}}, nil
	case !system:
		return eventlog.Filter{Regexp: `^[^$]`}, nil
	}
	return eventlog.Filter{}, nil
}
