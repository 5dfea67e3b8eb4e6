package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"

	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/origin"
	"github.com/purserhq/purser/internal/rpc"
	projectionv1 "github.com/purserhq/purser/proto/purser/projection/v1"
)

func projectionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "projection",
		Short: "See how the read models are, and steer them",
		Args:  cobra.NoArgs,
		RunE:  group,
	}
	cmd.AddCommand(
		projectionListCommand(), projectionStatusCommand(), projectionPauseCommand(), projectionResumeCommand(),
		projectionParkedCommand(), projectionUnparkCommand(),
		projectionRebuildCommand(), projectionSwitchCommand(), projectionDropCommand(),
	)
	return cmd
}

// projectionTool is what the commands on projections share.
type projectionTool struct {
	addr string
	json bool
}

func (t *projectionTool) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.addr, "projector-addr", target(projectorPorts), "host:port of the projector")
	cmd.Flags().BoolVar(&t.json, "json", false, "print JSON lines")
}

// run calls the projector. What it refuses is told in its own words.
func (t *projectionTool) run(cmd *cobra.Command, f func(ctx context.Context, c projectionv1.ProjectionServiceClient) error) error {
	logger, err := newLogger(cmd)
	if err != nil {
		return err
	}
	conn, err := rpc.Dial(t.addr, "projector", logger, rpc.NewMetrics(prometheus.NewRegistry()))
	if err != nil {
		return fmt.Errorf("--projector-addr: %w", err)
	}
	defer conn.Close()
	err = f(origin.With(cmd.Context(), origin.Origin{Actor: "operator"}), projectionv1.NewProjectionServiceClient(conn))
	switch f := fault.Of(err); {
	case f == nil || cmd.Context().Err() != nil:
		return err
	case f.Kind == fault.Unavailable || f.Kind == fault.DeadlineExceeded:
		return fmt.Errorf("--projector-addr %s: %s%s", t.addr, f.Message, t.cause(cmd.Context(), f))
	default:
		return errors.New(f.Message)
	}
}

// causeTimeout bounds the attempt to connect that tells why a projector does not answer.
const causeTimeout = 2 * time.Second

// cause is why the projector can't be reached, or empty where it can. It connects to find out: gRPC does not tell that a name
// has no address, for one.
func (t *projectionTool) cause(ctx context.Context, f *fault.Fault) string {
	var said interface{ GRPCStatus() *status.Status }
	if !errors.As(f.Err, &said) || len(said.GRPCStatus().Details()) > 0 { // the projector itself says that it lacks something
		return ""
	}
	conn, err := (&net.Dialer{Timeout: causeTimeout}).DialContext(ctx, "tcp", t.addr)
	if err == nil { // so it is what they have to say to each other
		_ = conn.Close()
		return ": " + said.GRPCStatus().Message()
	}
	var op *net.OpError
	if errors.As(err, &op) { // of which the address is told already
		err = op.Err
	}
	return ": " + strings.TrimPrefix(err.Error(), "connect: ")
}

func projectionListCommand() *cobra.Command {
	var t projectionTool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the projections: what they do, how far they are, how many keys are parked, and which builds there are",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.run(cmd, func(ctx context.Context, c projectionv1.ProjectionServiceClient) error {
				reply, err := c.ListProjections(ctx, &projectionv1.ListProjectionsRequest{})
				if err != nil {
					return err
				}
				if t.json {
					return printMessages(cmd.OutOrStdout(), reply.GetProjections())
				}
				return printProjections(cmd.OutOrStdout(), reply.GetProjections())
			})
		},
	}
	t.addFlags(cmd)
	return cmd
}

// projectionAction is a command on one projection that shows how it is afterwards.
func projectionAction(use, short string, act func(ctx context.Context, c projectionv1.ProjectionServiceClient, name string) (*projectionv1.Projection, error)) *cobra.Command {
	var t projectionTool
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  namedArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.run(cmd, func(ctx context.Context, c projectionv1.ProjectionServiceClient) error {
				p, err := act(ctx, c, args[0])
				if err != nil {
					return err
				}
				if t.json {
					return printMessages(cmd.OutOrStdout(), []*projectionv1.Projection{p})
				}
				return printProjection(cmd.OutOrStdout(), p)
			})
		},
	}
	t.addFlags(cmd)
	return cmd
}

func projectionStatusCommand() *cobra.Command {
	return projectionAction("status NAME", "Show all that is known of one projection",
		func(ctx context.Context, c projectionv1.ProjectionServiceClient, name string) (*projectionv1.Projection, error) {
			reply, err := c.GetProjection(ctx, &projectionv1.GetProjectionRequest{Name: name})
			return reply.GetProjection(), err
		})
}

func projectionPauseCommand() *cobra.Command {
	return projectionAction("pause NAME", "Have a projection rest where it is until it is resumed, restarts included",
		func(ctx context.Context, c projectionv1.ProjectionServiceClient, name string) (*projectionv1.Projection, error) {
			reply, err := c.PauseProjection(ctx, &projectionv1.PauseProjectionRequest{Name: name})
			return reply.GetProjection(), err
		})
}

func projectionResumeCommand() *cobra.Command {
	return projectionAction("resume NAME", "Have a paused projection go on",
		func(ctx context.Context, c projectionv1.ProjectionServiceClient, name string) (*projectionv1.Projection, error) {
			reply, err := c.ResumeProjection(ctx, &projectionv1.ResumeProjectionRequest{Name: name})
			return reply.GetProjection(), err
		})
}

func projectionParkedCommand() *cobra.Command {
	var t projectionTool
	cmd := &cobra.Command{
		Use:   "parked [NAME]",
		Short: "List the keys whose events can't be applied, with the cause, of one projection or of all",
		Args:  namedArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &projectionv1.ListParkedKeysRequest{Projection: strings.Join(args, "")}
			return t.run(cmd, func(ctx context.Context, c projectionv1.ProjectionServiceClient) error {
				var all []*projectionv1.ParkedKey
				for {
					reply, err := c.ListParkedKeys(ctx, req)
					if err != nil {
						return err
					}
					all = append(all, reply.GetParkedKeys()...)
					if req.PageToken = reply.GetNextPageToken(); req.PageToken == "" {
						break
					}
				}
				if t.json {
					return printMessages(cmd.OutOrStdout(), all)
				}
				return printParked(cmd.OutOrStdout(), all)
			})
		},
	}
	t.addFlags(cmd)
	return cmd
}

func projectionUnparkCommand() *cobra.Command {
	var t projectionTool
	cmd := &cobra.Command{
		Use:   "unpark NAME KEY",
		Short: "Fold a parked key anew by the code that runs now, and go on with it; KEY is as 7 for order-7",
		Args:  namedArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.run(cmd, func(ctx context.Context, c projectionv1.ProjectionServiceClient) error {
				reply, err := c.UnparkKey(ctx, &projectionv1.UnparkKeyRequest{Projection: args[0], Key: args[1]})
				if err != nil {
					return err
				}
				if t.json {
					return printMessages(cmd.OutOrStdout(), []*projectionv1.UnparkKeyResponse{reply})
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s of %s unparked\n", args[1], args[0])
				return err
			})
		},
	}
	t.addFlags(cmd)
	return cmd
}
