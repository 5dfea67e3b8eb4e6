package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

const healthTimeout = 3 * time.Second

// healthCommand exists for containers, whose image has no shell and no curl.
func healthCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "health HOST:PORT",
		Short: "Ask the HTTP port of a service whether it is ready; exits with 1 if not",
		Args:  namedArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), healthTimeout)
			defer cancel()
			return checkHealth(ctx, args[0])
		},
	}
}

func checkHealth(ctx context.Context, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if _, _, noPort := net.SplitHostPort(addr); noPort != nil || err != nil {
		return fmt.Errorf("%q is no HOST:PORT", addr)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", addr, cause(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("%s is not ready", addr)
	}
	return nil
}
