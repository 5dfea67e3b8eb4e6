package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/readmodel"
	"github.com/purserhq/purser/services/saga"
)

// replay says what is folded, and what of it is shown.
type replay struct {
	streamTool
	fold     string
	step     bool
	each     bool // show what there is to see after each event
	files    []string
	json     bool
	personal bool
}

func replayCommand() *cobra.Command {
	var r replay
	cmd := &cobra.Command{
		Use:   "replay KEY",
		Short: "Fold the events of one order or product as the services do, and show what becomes of it; personal data is masked",
		Long: "Fold the events of one order or product, in memory, by the very functions that the services fold them by, and show the\n" +
			"last state: without --fold the order as GetOrder answers it. KEY is the id, as 7 for order-7, payment-7 and fulfillment-7.\n\n" +
			"With --step each event is shown, who asked for it, what it was caused by, and what it changed. With --fold NAME what a\n" +
			"read model, report or to-do list has of it is shown after each event; with both, what changed of that. NAME is one of\n" +
			strings.Join(replayNames(), ", ") + ".\n\n" +
			"The events come from the event store, or with --from from files made by `purser stream export`. A file has its events in the\n" +
			"order of the log. Of several files, whose events may have happened in between each other's, the event comes next that the\n" +
			"store took first. Positions in the log are not in a file: its events are numbered from 1.",
		Args: namedArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			model, err := r.model()
			if err != nil {
				return err
			}
			r.schema, r.each = eventschema.New(), cmd.Flags().Changed("fold")
			events, err := r.history(cmd, model.Categories, args[0])
			if err != nil {
				return err
			}
			return r.show(cmd.OutOrStdout(), model, args[0], events)
		},
	}
	r.addEventstore(cmd.Flags())
	cmd.Flags().BoolVar(&r.step, "step", false, "show each event, and what it changed")
	cmd.Flags().StringVar(&r.fold, "fold", readmodel.OrderDetails.Name, "what to fold, and to show after each event")
	cmd.Flags().StringArrayVar(&r.files, "from", nil, "read the events from a file made by purser stream export (repeatable; - for standard input)")
	cmd.Flags().BoolVar(&r.personal, "personal", false, "show personal data")
	cmd.Flags().BoolVar(&r.json, "json", false, "print JSON lines")
	return cmd
}

// replays is all that can be replayed: what the projector and the saga keep.
func replays() []consumer.Replay { return append(readmodel.Replays(), saga.Replays()...) }

func replayNames() []string {
	var names []string
	for _, r := range replays() {
		names = append(names, r.Name)
	}
	return names
}

func (r *replay) model() (consumer.Replay, error) {
	all := replays()
	n := slices.IndexFunc(all, func(m consumer.Replay) bool { return m.Name == r.fold })
	if n < 0 {
		return consumer.Replay{}, fmt.Errorf("--fold: there is no %q; there are %s", r.fold, strings.Join(replayNames(), ", "))
	}
	return all[n], nil
}

// history returns the events of a key that a model reads.
func (r *replay) history(cmd *cobra.Command, categories []string, key string) (events []eventlog.Recorded, err error) {
	streams := make([]string, len(categories))
	for i, c := range categories {
		streams[i] = eventlog.StreamName(c, key)
	}
	if len(r.files) > 0 {
		events, err = fileHistory(cmd.InOrStdin(), r.files, streams)
	} else {
		err = r.run(cmd, func(ctx context.Context, l *eventlog.Log) error {
			events, err = logHistory(ctx, l, streams)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	if len(events) == 0 {
		return nil, fmt.Errorf("there are no events of %s", strings.Join(streams, ", "))
	}
	return events, whole(events)
}

// show folds the events and prints what was asked for.
func (r *replay) show(w io.Writer, model consumer.Replay, key string, events []eventlog.Recorded) error {
	out := bufio.NewWriter(w)
	p := replayPrinter{
		out: out, json: r.json, changes: r.step, perEvent: model.PerEvent,
		events: eventPrinter{schema: r.schema, personal: r.personal}, seen: map[string]string{},
	}
	stepper := model.Begin(decoder{r.schema, r.personal}, key)
	view, err := stepper.View()
	for _, e := range events {
		if err != nil {
			break
		}
		var known bool
		if known, err = stepper.Apply(e); err != nil {
			break
		}
		before := view
		if view, err = stepper.View(); err == nil && (r.step || r.each) {
			err = p.event(e, known, before, view)
		}
	}
	if err == nil && !r.step && !r.each {
		err = p.state(view)
	}
	if ferr := out.Flush(); err == nil { // what led to an error is shown before it
		err = ferr
	}
	return err
}

// decoder reads events as the services do, and unless it is asked not to takes out what is personal, on which no fold
// depends.
type decoder struct {
	schema   *eventschema.Registry
	personal bool
}

func (d decoder) Decode(r eventlog.Recorded) (eventlog.Event, error) {
	e, err := eventlog.Decode(d.schema, r)
	if err == nil && !d.personal {
		for _, m := range e.Messages {
			eventschema.Redact(m)
		}
	}
	return e, err
}
