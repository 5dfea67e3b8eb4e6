package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/eventlog"
)

const personalUsage = "show personal data, and events that this build does not know, as they are stored"

func streamShowCommand() *cobra.Command {
	var t streamTool
	var p eventPrinter
	var from int64
	var limit int
	cmd := &cobra.Command{
		Use:   "show STREAM",
		Short: "Show the events of a stream; personal data is masked",
		Args:  namedArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(atLeast(0, "from", from), atLeast(0, "limit", limit)); err != nil {
				return err
			}
			return t.run(cmd, func(ctx context.Context, l *eventlog.Log) error {
				out := bufio.NewWriter(cmd.OutOrStdout())
				p.out, p.schema = out, t.schema
				if err := p.show(ctx, l, args[0], eventlog.Revision(from), limit); err != nil {
					return err
				}
				return out.Flush()
			})
		},
	}
	t.addEventstore(cmd.Flags())
	cmd.Flags().Int64Var(&from, "from", 0, "begin with this revision")
	cmd.Flags().IntVar(&limit, "limit", 0, "show so many events; 0: all")
	cmd.Flags().BoolVar(&p.personal, "personal", false, personalUsage)
	cmd.Flags().BoolVar(&p.json, "json", false, "print JSON lines")
	return cmd
}

// show prints the events of a stream from a revision on: at most limit, if it is positive.
func (p *eventPrinter) show(ctx context.Context, l *eventlog.Log, stream string, from eventlog.Revision, limit int) error {
	shown := 0
	for e, err := range l.Stream(ctx, stream, from) {
		if err != nil {
			return err
		}
		if err := p.print(e); err != nil {
			return err
		}
		if shown++; shown == limit {
			break
		}
	}
	if shown == 0 {
		return fmt.Errorf("stream %s has no events from revision %d on", stream, from)
	}
	return nil
}
