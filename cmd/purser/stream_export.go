package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/eventfile"
	"github.com/purserhq/purser/internal/eventlog"
)

// streamExport says what is exported, and where to.
type streamExport struct {
	stream, prefix string
	all            bool
	output         string
}

func streamExportCommand() *cobra.Command {
	var t streamTool
	var x streamExport
	cmd := &cobra.Command{
		Use:   "export [STREAM]",
		Short: "Write events as JSON lines, for import into another store; personal data is among them",
		Long: "Write the events of one stream, of the streams of a --prefix or of --all streams but the event store's own as JSON lines,\n" +
			"in the order of the log, each exactly as it is stored.\n\n" +
			"The file holds everything, personal data too: keep it as you keep the store. Its last line says how many events it has,\n" +
			"so that one that was cut off is recognised; with --output it appears under its name only once it is whole.",
		Args: namedArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				x.stream = args[0]
			}
			if err := x.validate(); err != nil {
				return err
			}
			return t.run(cmd, func(ctx context.Context, l *eventlog.Log) error {
				if x.output == "" {
					return interrupted(ctx, x.write(ctx, cmd, l, cmd.OutOrStdout()), "the output is not whole, and an import will refuse it")
				}
				err := writeWhole(x.output, func(w io.Writer) error { return x.write(ctx, cmd, l, w) })
				return interrupted(ctx, err, "there is no "+x.output)
			})
		},
	}
	t.addEventstore(cmd.Flags())
	cmd.Flags().StringVar(&x.prefix, "prefix", "", "export all streams whose names begin so")
	cmd.Flags().BoolVar(&x.all, "all", false, "export all streams but the event store's own")
	cmd.Flags().StringVar(&x.output, "output", "", "file to write; standard output if empty")
	return cmd
}

func (x *streamExport) validate() error {
	given := 0
	for _, g := range []bool{x.stream != "", x.prefix != "", x.all} {
		if g {
			given++
		}
	}
	if given != 1 {
		return errors.New("name one stream, or a --prefix, or --all")
	}
	if x.output == "" {
		return nil
	}
	return mustNotExist(x.output, "--output")
}

// write writes the events, and notes which streams can't be imported.
func (x *streamExport) write(ctx context.Context, cmd *cobra.Command, l *eventlog.Log, out io.Writer) error {
	w := eventfile.NewWriter(out)
	histories := eventfile.NewHistories()
	add := func(e eventlog.Recorded) error {
		_ = histories.Add(e) // told at the end
		return w.Write(e)
	}
	if err := x.visit(ctx, cmd, l, add); err != nil {
		return err
	}
	if x.stream != "" && w.Events() == 0 {
		return fmt.Errorf("stream %s has no events", x.stream)
	}
	if err := w.Close(); err != nil {
		return err
	}
	if n, first := histories.Unfit(); n > 0 {
		note(cmd.ErrOrStderr(), "%s (import --skip-unfit leaves such streams out; there are %d)", first, n)
	}
	note(cmd.ErrOrStderr(), "%s exported", plural(w.Events(), "event"))
	return nil
}

func (x *streamExport) visit(ctx context.Context, cmd *cobra.Command, l *eventlog.Log, add func(eventlog.Recorded) error) error {
	if x.stream == "" {
		return walk(ctx, cmd, l, func(e eventlog.Recorded) error {
			if eventlog.IsSystem(e.Stream) || !strings.HasPrefix(e.Stream, x.prefix) {
				return nil
			}
			return add(e)
		})
	}
	for e, err := range l.Stream(ctx, x.stream, 0) {
		if err != nil {
			return err
		}
		if err := add(e); err != nil {
			return err
		}
	}
	return nil
}

// writeWhole makes a file that only its owner can read, and that has its name only once it is whole and on disk.
func writeWhole(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.partial")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
