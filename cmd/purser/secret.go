package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/secret"
)

func secretCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "secret",
		Short: "Print a new key for the file with the deployment's secret",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(cmd.OutOrStdout(), secret.NewKey())
			return err
		},
	}
}
