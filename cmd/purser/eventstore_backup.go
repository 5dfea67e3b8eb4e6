package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/purserhq/purser/services/eventstore"
	"github.com/purserhq/purser/services/eventstore/storage"
)

func eventstoreBackupCommand() *cobra.Command {
	var url string
	cmd := &cobra.Command{
		Use:   "backup DIR",
		Short: "Copy a running embedded event store into a new directory, and check the copy",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			log, err := newLogger(cmd)
			if err != nil {
				return err
			}
			body, err := requestBackup(cmd.Context(), url)
			if err != nil {
				return fmt.Errorf("back up the event store: %w", err)
			}
			defer body.Close()
			progress := cmd.ErrOrStderr()
			bar := newBar(progress, -1, "backup", progressbar.OptionShowBytes(true))
			err = storage.ReceiveBackup(io.TeeReader(body, bar), args[0], func(dir string) error {
				_ = bar.Finish()
				return verifyStore(cmd.OutOrStdout(), progress, log, dir)
			})
			if err != nil {
				return fmt.Errorf("back up the event store: %w", err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "the backup is in %s\n", args[0])
			return err
		},
	}
	cmd.Flags().StringVar(&url, "url", fmt.Sprintf("http://%s:%d", loopback, eventstorePorts.http), "HTTP address of the event store's port")
	return cmd
}

// requestBackup begins to receive a backup.
func requestBackup(ctx context.Context, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+eventstore.BackupPath, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		reason, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return nil, fmt.Errorf("%s answers %s: %s", url, resp.Status, strings.TrimSpace(string(reason)))
	}
	return resp.Body, nil
}
