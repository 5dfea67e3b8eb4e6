package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/purserhq/purser/services/eventstore"
	"github.com/purserhq/purser/services/eventstore/storage"
)

func eventstoreBackupCommand() *cobra.Command {
	var addr string
	cmd := &cobra.Command{
		Use:   "backup DIR",
		Short: "Copy a running embedded event store into a new directory, and check the copy",
		Args:  namedArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			log, err := newLogger(cmd)
			if err != nil {
				return err
			}
			if err := mustNotExist(args[0], "back up the event store"); err != nil {
				return err
			}
			from, err := backupURL(addr)
			if err != nil {
				return err
			}
			body, err := requestBackup(cmd.Context(), from)
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
	cmd.Flags().StringVar(&addr, "url", fmt.Sprintf("http://%s:%d", loopback, eventstorePorts.http), "HTTP address of the event store's port; http:// may be left out")
	return cmd
}

// backupURL is where the event store at an address offers a backup.
func backupURL(addr string) (*url.URL, error) {
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	u, err := url.Parse(addr)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("--url is no HTTP address: want HOST:PORT or http://HOST:PORT")
	}
	return u.JoinPath(eventstore.BackupPath), nil
}

// requestBackup begins to receive a backup.
func requestBackup(ctx context.Context, from *url.URL) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the event store at %s does not answer: %w", from.Host, cause(err))
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		reason, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return nil, fmt.Errorf("%s answers %s: %s", from.Host, resp.Status, strings.TrimSpace(string(reason)))
	}
	return resp.Body, nil
}

// cause is why a request failed, without what was tried.
func cause(err error) error {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number
	}
	var request *url.Error
	if errors.As(err, &request) {
		return request.Err
	}
	return err
}
