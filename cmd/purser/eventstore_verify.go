package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/purserhq/purser/services/eventstore/storage"
)

func eventstoreVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify DIR",
		Short: "Check the embedded event store in a directory that no process uses",
		Args:  namedArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			log, err := newLogger(cmd)
			if err != nil {
				return err
			}
			return verifyStore(cmd.OutOrStdout(), cmd.ErrOrStderr(), log, storeIn(args[0]))
		},
	}
}

// storeIn is the directory of an event store that was named either itself or by the data directory that holds it.
func storeIn(dir string) string {
	below := eventstoreDir(dir)
	if info, err := os.Stat(below); err == nil && info.IsDir() {
		return below
	}
	return filepath.Clean(dir)
}

// verifyStore prints what an event store holds and what is wrong with it, which is an error.
func verifyStore(out, progress io.Writer, log *slog.Logger, dir string) error {
	const steps = 1000
	bar := newBar(progress, steps, "verify")
	begun := time.Now()
	r, err := storage.Verify(dir, log, func(done float64) { _ = bar.Set(int(done * steps)) })
	_ = bar.Finish()
	if err != nil {
		return err
	}
	if err := printReport(out, r, time.Since(begun)); err != nil {
		return err
	}
	if !r.Sound() {
		return errors.New("the event store is damaged; restore a backup")
	}
	return nil
}

func printReport(out io.Writer, r *storage.Report, took time.Duration) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	which := ""
	if r.Unread {
		which = " that can be read"
	}
	fmt.Fprintf(w, "streams\t%d%s\n", r.Streams, which)
	fmt.Fprintf(w, "events\t%d%s\n", r.Events, which)
	fmt.Fprintf(w, "bytes of events\t%d\n", r.Bytes)
	fmt.Fprintf(w, "head position\t%d\n", r.Head)
	fmt.Fprintf(w, "checked in\t%s\n", took.Round(time.Millisecond))
	for _, finding := range r.Findings {
		fmt.Fprintf(w, "WRONG\t%s\n", finding)
	}
	if r.Unlisted > 0 {
		fmt.Fprintf(w, "WRONG\tand %d more\n", r.Unlisted)
	}
	if r.Sound() {
		fmt.Fprintf(w, "result\tsound\n")
	}
	return w.Flush()
}
