package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/localpostgres"
	"github.com/purserhq/purser/internal/postgres"
	"github.com/purserhq/purser/internal/readmodel"
	"github.com/purserhq/purser/services/saga"
)

// audit says what is compared, and what is told of it.
type audit struct {
	streamTool
	dataDir    string
	portOffset int
	models     []string
	values     bool
}

func auditCommand() *cobra.Command {
	var a audit
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Compare read models, reports and the saga's list with the event log; exits with 1 if anything differs",
		Long: "Compare every row of the read models, every line of the reports and the saga's to-do list with what the event log adds up to,\n" +
			"column by column, and print each difference on a line. It changes nothing, and may run beside everything else: it reads the\n" +
			"tables in one snapshot of the database, up to the checkpoints that belong to them. Until it ends, Postgres keeps the old\n" +
			"versions of rows for it.\n\n" +
			"The log is walked once; a row of each read model is held in memory for each order and product. Parked keys are listed apart,\n" +
			"and compared up to the event for which they were parked.\n\n" +
			"Models are " + strings.Join(modelNames(), ", ") + ".",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			models, err := a.chosen()
			if err != nil {
				return err
			}
			if a.dataDir != "" {
				if cmd.Flags().Changed("postgres-url") { // by the environment too
					return errors.New("--data-dir and --postgres-url (PURSER_DATA_DIR, PURSER_POSTGRES_URL) name two databases; give one")
				}
				if a.postgresURL, err = localpostgres.Find(filepath.Join(a.dataDir, "postgres")); err != nil {
					return fmt.Errorf("--data-dir: %w", err)
				}
			}
			ownStore := !cmd.Flags().Changed("eventstore-url")
			if ownStore {
				a.eventstoreURL = storeURL(a.portOffset)
			}
			err = a.run(cmd, func(ctx context.Context, l *eventlog.Log) error { return a.compare(ctx, cmd, l, models) })
			if ownStore && errors.As(err, new(*eventlog.UnreachableError)) {
				return fmt.Errorf("%w (--port-offset or --eventstore-url says where else it listens)", err)
			}
			return err
		},
	}
	a.addEventstore(cmd.Flags())
	a.addPostgres(cmd.Flags())
	cmd.Flags().StringVar(&a.dataDir, "data-dir", "", "data directory of a purser dev whose private Postgres is meant, instead of --postgres-url")
	cmd.Flags().IntVar(&a.portOffset, "port-offset", 0, "that of the purser dev whose event store is meant, where no --eventstore-url is given")
	cmd.Flags().StringSliceVar(&a.models, "model", nil, "compare only this model, with what is derived from it (repeatable)")
	cmd.Flags().BoolVar(&a.values, "values", false, "print what is stored and what should be, personal data included")
	return cmd
}

// storeURL is the connection string of the embedded event store of a purser dev.
func storeURL(portOffset int) string {
	return "esdb://" + target(eventstorePorts.offset(portOffset)) + "?tls=false"
}

// auditable is what the projector and the saga keep.
func auditable() []consumer.Model { return append(readmodel.Models(), saga.Models()...) }

func modelNames() []string {
	var names []string
	for _, m := range auditable() {
		names = append(names, m.Name())
	}
	return names
}

func (a *audit) chosen() ([]consumer.Model, error) {
	for _, name := range a.models {
		if !slices.Contains(modelNames(), name) {
			return nil, fmt.Errorf("--model: there is no %q; there are %s", name, strings.Join(modelNames(), ", "))
		}
	}
	return slices.DeleteFunc(auditable(), func(m consumer.Model) bool {
		return len(a.models) > 0 && !slices.Contains(a.models, m.Name())
	}), nil
}

// pool is connections to the database that the flags name, once it has answered.
func (a *audit) pool(ctx context.Context) (*pgxpool.Pool, error) {
	pool, err := postgres.Open(a.postgresURL, "audit", 0)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, postgres.Explain(err)
	}
	return pool, nil
}

func (a *audit) compare(ctx context.Context, cmd *cobra.Command, l *eventlog.Log, models []consumer.Model) error {
	pool, err := a.pool(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	head, err := l.Head(ctx)
	if err != nil {
		return err
	}
	bar := newBar(cmd.ErrOrStderr(), int64(head), cmd.Name())
	defer bar.Close()
	out := bufio.NewWriter(cmd.OutOrStdout())
	differences := 0
	audited, err := consumer.Audit(ctx, pool, l, models,
		func(p eventlog.Position) { _ = bar.Set64(min(int64(p), int64(head))) },
		func(d consumer.Difference) {
			differences++
			fmt.Fprintln(out, a.line(d))
		})
	_ = bar.Clear()
	if err != nil {
		return interrupted(ctx, errors.Join(out.Flush(), err), "nothing is proven")
	}
	if err := summarize(out, audited); err != nil {
		return err
	}
	missing := slices.ContainsFunc(audited, func(m consumer.Audited) bool { return len(m.Missing) > 0 })
	switch {
	case differences > 0:
		return fmt.Errorf("%s from the log", plural(differences, "difference"))
	case missing:
		return errors.New("not everything is there to be compared")
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), "no difference")
	return err
}

// line is a difference in words: where it is, and what differs.
func (a *audit) line(d consumer.Difference) string {
	at := d.Model
	if d.Table != d.Model {
		at += " " + d.Table
	}
	at += " " + strings.Join(d.Key, "/")
	switch {
	case d.Column == "":
		return at + ": " + d.What
	case !a.values:
		return at + ": column " + d.Column + " differs"
	}
	return fmt.Sprintf("%s: column %s is %s, should be %s", at, d.Column, d.Stored, d.Wanted)
}

// summarize tells what was compared, and what could not be as it is parked.
func summarize(out *bufio.Writer, audited []consumer.Audited) error {
	for _, m := range audited {
		for _, k := range m.Parked {
			fmt.Fprintf(out, "%s %s: parked since position %d\n", m.Model, k.Key, k.Position)
		}
	}
	for _, m := range audited {
		if len(m.Missing) > 0 {
			fmt.Fprintf(out, "%s: no version of %s that this build reads was made yet\n", m.Model, strings.Join(m.Missing, ", "))
			continue
		}
		with := ""
		if len(m.Derived) > 0 {
			with = ", with " + strings.Join(m.Derived, " and ")
		}
		fmt.Fprintf(out, "%s%s: %s compared, up to position %d\n", m.Model, with, plural(m.Keys, "key"), m.Position)
	}
	return out.Flush()
}
