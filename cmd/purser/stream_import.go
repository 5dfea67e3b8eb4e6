package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/eventfile"
	"github.com/purserhq/purser/internal/eventlog"
)

// streamImport says how a file is imported.
type streamImport struct {
	partial, skipUnfit bool
}

func streamImportCommand() *cobra.Command {
	var t streamTool
	var m streamImport
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Append the events of an export, each at its revision; run it again to go on after an interruption",
		Long: "Append the events of an export, each with the id, data and metadata and at the revision that it has in the file (- for standard input).\n\n" +
			"What the store has already is left as it is, so an import that was interrupted goes on when it is run again, and running it\n" +
			"twice changes nothing. A stream that has other events than the file, or was deleted or truncated, ends the import with an error.\n" +
			"Events of streams that share an id, as order-7 and payment-7 do, keep their order in the log.\n\n" +
			"A file is checked as a whole before anything is written. Standard input can't be, so its faults show when they are reached.",
		Args: namedArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.run(cmd, func(ctx context.Context, l *eventlog.Log) error {
				return interrupted(ctx, m.run(ctx, cmd, l, args[0]), "run it again to go on")
			})
		},
	}
	t.addEventstore(cmd.Flags())
	cmd.Flags().BoolVar(&m.partial, "partial", false, "take a file whose end is missing")
	cmd.Flags().BoolVar(&m.skipUnfit, "skip-unfit", false, "leave out streams that can't be imported, because they are truncated, deleted or the event store's own")
	return cmd
}

func (m streamImport) run(ctx context.Context, cmd *cobra.Command, l *eventlog.Log, name string) error {
	if name == "-" {
		if m.skipUnfit {
			return errors.New("--skip-unfit needs a file: standard input can't be read twice")
		}
		bar := newBar(cmd.ErrOrStderr(), -1, "import", progressbar.OptionShowBytes(true))
		defer bar.Close()
		return m.append(ctx, cmd, l, io.TeeReader(cmd.InOrStdin(), bar), nil)
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no file that can be read twice; use - for standard input", name)
	}
	checked, err := m.check(ctx, cmd, f, info.Size())
	if err != nil {
		return fmt.Errorf("%s: %w; nothing was written", name, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	bar := newBar(cmd.ErrOrStderr(), info.Size(), "import", progressbar.OptionShowBytes(true))
	defer bar.Close()
	return m.append(ctx, cmd, l, io.TeeReader(f, bar), checked)
}

// check reads the whole file before anything of it is written.
func (m streamImport) check(ctx context.Context, cmd *cobra.Command, f io.Reader, size int64) (*eventfile.Histories, error) {
	bar := newBar(cmd.ErrOrStderr(), size, "check", progressbar.OptionShowBytes(true))
	defer bar.Close()
	checked, err := eventfile.Check(eventfile.NewReader(io.TeeReader(untilDone{ctx, f}, bar), m.partial))
	if err != nil {
		return nil, err
	}
	if n, first := checked.Unfit(); n > 0 && !m.skipUnfit {
		return nil, fmt.Errorf("%w (--skip-unfit leaves such streams out; there are %d)", first, n)
	}
	return checked, nil
}

func (m streamImport) append(ctx context.Context, cmd *cobra.Command, l *eventlog.Log, r io.Reader, checked *eventfile.Histories) error {
	done, err := eventfile.Import(ctx, l, eventfile.NewReader(untilDone{ctx, r}, m.partial), checked)
	if err != nil {
		return fmt.Errorf("%w; %s added so far", err, plural(done.Added, "event"))
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s added, %d there before, %d left out\n", plural(done.Added, "event"), done.Present, done.Skipped)
	return err
}

// untilDone is a reader that fails once ctx has ended.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(b)
}
