package main

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/purserhq/purser/internal/daemon"
)

const envPrefix = "PURSER_"

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "purser",
		Short:         "Event-sourced order processing",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       buildVersion(),
	}
	root.PersistentFlags().String("log-level", "info", "least level that is logged: debug, info, warn or error")
	root.PersistentFlags().String("log-format", "text", "format of the log: text or json")
	root.AddCommand(
		devCommand(), demoCommand(), benchCommand(), versionCommand(), healthCommand(), secretCommand(), referenceCommand(),
		eventstoreCommand(), writeCommand(), inventoryCommand(), paymentCommand(), sagaCommand(), projectorCommand(), queryCommand(),
		streamCommand(), replayCommand(), projectionCommand(), auditCommand(),
	)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return fromEnvironment(cmd.Flags()) }
	return root
}

// envName is the environment variable that sets a flag's default.
func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// fromEnvironment sets the flags that the command line leaves out from the environment.
func fromEnvironment(flags *pflag.FlagSet) error {
	var err error
	flags.VisitAll(func(f *pflag.Flag) {
		name := envName(f.Name)
		v, ok := os.LookupEnv(name)
		if !ok || f.Changed || err != nil || injected(name, v) {
			return
		}
		if serr := flags.Set(f.Name, v); serr != nil {
			err = fmt.Errorf("%s: %w", name, serr)
		}
	})
	return err
}

// injected tells what Kubernetes puts into the environment for a Service, as PURSER_GRPC_PORT=tcp://10.0.0.1:80 for one
// that is named purser-grpc, from what somebody has set for us.
func injected(name, value string) bool {
	scheme, _, isURL := strings.Cut(value, "://")
	return isURL && strings.HasSuffix(name, "_PORT") && slices.Contains([]string{"tcp", "udp", "sctp"}, scheme)
}

// warnUnknownEnvironment names variables that look like ours but set no flag of any command: what is set for another one
// is no mistake in an environment that several share. A warning only, because Kubernetes injects some of its own.
func warnUnknownEnvironment(cmd *cobra.Command, log *slog.Logger) {
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(otherVariables, name) {
			continue
		}
		flag := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, envPrefix), "_", "-"))
		if !anyHas(cmd.Root(), flag) || injected(name, value) {
			log.Warn("environment variable sets nothing here", "name", name)
		}
	}
}

// anyHas tells whether a command, or one below it, has a flag.
func anyHas(cmd *cobra.Command, flag string) bool {
	return cmd.Flags().Lookup(flag) != nil || cmd.PersistentFlags().Lookup(flag) != nil ||
		slices.ContainsFunc(cmd.Commands(), func(c *cobra.Command) bool { return anyHas(c, flag) })
}

// otherVariables are read elsewhere: by docker-compose.yml.
var otherVariables = []string{"PURSER_EVENTSTORE_IMAGE", "PURSER_POSTGRES_IMAGE", "PURSER_IMAGE"}

// namedArguments is for a command with just the arguments that its Use names, as in "switch NAME [BUILD]", of which those in
// brackets may be left out.
func namedArguments(cmd *cobra.Command, args []string) error {
	names := strings.Fields(cmd.Use)[1:]
	switch {
	case len(args) < len(names) && !strings.HasPrefix(names[len(args)], "["):
		return fmt.Errorf("%s is missing: it is %s", names[len(args)], cmd.UseLine())
	case len(args) > len(names):
		return fmt.Errorf("%q is one argument too many: it is %s", args[len(names)], cmd.UseLine())
	}
	return nil
}

// group is the body of a command that only has others below it.
func group(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// atLeast refuses a flag's value that is too small.
func atLeast[N int | int64 | time.Duration](least N, flag string, given N) error {
	if given < least {
		return fmt.Errorf("--%s must be at least %v, not %v", flag, least, given)
	}
	return nil
}

// newLogger makes the process's logger by the flags of the command.
func newLogger(cmd *cobra.Command) (*slog.Logger, error) {
	level, _ := cmd.Flags().GetString("log-level")
	format, _ := cmd.Flags().GetString("log-format")
	log, err := daemon.NewLogger(cmd.ErrOrStderr(), level, format)
	if err != nil {
		return nil, err
	}
	warnUnknownEnvironment(cmd, log)
	return log, nil
}
