package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
)

// storeTimeout bounds how long a tool waits for the event store to answer for the first time.
const storeTimeout = 10 * time.Second

func streamCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stream",
		Short: "Look at the event log and copy parts of it; works on any EventStoreDB",
		Args:  cobra.NoArgs,
		RunE:  group,
	}
	cmd.AddCommand(streamLsCommand(), streamShowCommand(), streamTailCommand(), streamExportCommand(), streamImportCommand())
	return cmd
}

// streamTool is what the commands on streams share.
type streamTool struct {
	serviceFlags
	schema *eventschema.Registry
}

// run opens the log that the flags name, and passes it on once it has answered.
func (t *streamTool) run(cmd *cobra.Command, f func(ctx context.Context, l *eventlog.Log) error) error {
	logger, err := newLogger(cmd)
	if err != nil {
		return err
	}
	t.schema = eventschema.New()
	l, err := openLog(cmd.Context(), t.eventstoreURL, t.schema, logger)
	if err != nil {
		return err
	}
	defer l.Close()
	return f(cmd.Context(), l)
}

func openLog(ctx context.Context, url string, schema eventlog.Schema, logger *slog.Logger) (*eventlog.Log, error) {
	l, err := eventlog.Open(url, schema, logger, nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if _, err := l.Head(ctx); err != nil {
		l.Close()
		if errors.As(err, new(*eventlog.UnreachableError)) {
			return nil, err // which says it all
		}
		return nil, fmt.Errorf("--eventstore-url: %w", err)
	}
	return l, nil
}

// walk visits the events of the whole log that are wanted, and shows how far it is.
func walk(ctx context.Context, cmd *cobra.Command, l *eventlog.Log, visit func(eventlog.Recorded) error) error {
	head, err := l.Head(ctx)
	if err != nil {
		return err
	}
	bar := newBar(cmd.ErrOrStderr(), int64(head), cmd.Name())
	defer bar.Close()
	for e, err := range l.All(ctx) {
		if err != nil {
			return err
		}
		if err := visit(e); err != nil {
			return err
		}
		_ = bar.Set64(min(int64(e.Position), int64(head)))
	}
	return nil
}

// interrupted replaces the error of a command that Ctrl-C has ended before its work was done: without an error, a script
// would take the work for done.
func interrupted(ctx context.Context, err error, hint string) error {
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted: " + hint)
	}
	return err
}

// mustNotExist refuses a file or directory that something is to be written to and that is there already.
func mustNotExist(path, what string) error {
	switch _, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %s exists already, and is not overwritten; give another name", what, path)
}

// plural is a count with its noun.
func plural[N int | int64](n N, noun string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// note tells the operator something beside a command's output.
func note(w io.Writer, format string, args ...any) { fmt.Fprintf(w, "note: "+format+"\n", args...) }
