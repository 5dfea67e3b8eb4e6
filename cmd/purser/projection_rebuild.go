package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/purserhq/purser/internal/fault"
	projectionv1 "github.com/purserhq/purser/proto/purser/projection/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

func projectionRebuildCommand() *cobra.Command {
	var t projectionTool
	var noSwitch bool
	cmd := &cobra.Command{
		Use:   "rebuild NAME",
		Short: "Make a projection anew from the first event on, beside the live one, and switch to it when it is complete",
		Long: "Make a projection anew from the first event on, beside the one that queries are answered from, and switch to it once it is\n" +
			"complete, level with the other one, and a sample of it agrees with the log.\n\n" +
			"The projectors do it, so it goes on when this command is interrupted; the same command then goes on with it. The build before is\n" +
			"kept up to date: purser projection switch goes back to it, purser projection drop removes it.",
		Args: namedArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.run(cmd, func(ctx context.Context, c projectionv1.ProjectionServiceClient) error {
				req := &projectionv1.RebuildProjectionRequest{Name: args[0], NoSwitch: noSwitch}
				told, err := t.rebuild(ctx, cmd, c, req)
				for told && fault.Is(err, typev1.ErrorReason_ERROR_REASON_DEPENDENCY_UNAVAILABLE) { // connections end now and then
					told, err = t.rebuild(ctx, cmd, c, req)
				}
				return interrupted(cmd.Context(), err, "the rebuild goes on; the same command goes on with it")
			})
		},
	}
	t.addFlags(cmd)
	cmd.Flags().BoolVar(&noSwitch, "no-switch", false, "leave queries on the build that they are answered from")
	return cmd
}

// rebuild follows a rebuild to its end, and says whether it was told anything of it.
func (t *projectionTool) rebuild(ctx context.Context, cmd *cobra.Command, c projectionv1.ProjectionServiceClient, req *projectionv1.RebuildProjectionRequest) (told bool, err error) {
	stream, err := c.RebuildProjection(ctx, req)
	if err != nil {
		return false, err
	}
	bar := newBar(cmd.ErrOrStderr(), -1, "rebuild", progressbar.OptionSetItsString("events"), progressbar.OptionShowIts(), progressbar.OptionShowCount())
	defer bar.Close()
	started := time.Now()
	var first *projectionv1.RebuildProjectionResponse
	for {
		p, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return told, errors.New("the projector ended without having said how it went")
		}
		if err != nil {
			return told, err
		}
		told = true
		if first == nil {
			first = p
		}
		if t.json {
			if err := printMessages(cmd.OutOrStdout(), []*projectionv1.RebuildProjectionResponse{p}); err != nil {
				return told, err
			}
		}
		bar.Describe(p.GetBuild() + " " + shortName(p.GetPhase(), "REBUILD_PHASE_"))
		bar.ChangeMax64(max(p.GetEventsTotal(), 1))
		_ = bar.Set64(min(p.GetEventsDone(), p.GetEventsTotal()))
		if p.GetPhase() != projectionv1.RebuildPhase_REBUILD_PHASE_DONE {
			continue
		}
		_ = bar.Clear()
		if t.json {
			return told, nil
		}
		did := fmt.Sprintf("%s in %s", plural(p.GetEventsDone()-first.GetEventsDone(), "event"), time.Since(started).Round(100*time.Millisecond))
		if first.GetPhase() == projectionv1.RebuildPhase_REBUILD_PHASE_VERIFYING { // nothing was left to fill
			did = "complete already, and checked again"
		}
		now := "queries are answered from it"
		if req.GetNoSwitch() {
			now = "queries are answered from the one before until purser projection switch " + req.GetName()
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s; %s\n", p.GetBuild(), did, now)
		return told, err
	}
}

func projectionSwitchCommand() *cobra.Command {
	var t projectionTool
	cmd := &cobra.Command{
		Use:   "switch NAME [BUILD]",
		Short: "Answer queries from the other build of a projection that is kept, or from the one named",
		Long: "Answer queries from the other build of a projection that is kept, or from the one named, once it has all that the live one has.\n" +
			"Both are kept up to date until one is dropped, so the same command goes back. purser projection status NAME lists the builds,\n" +
			"purser projection rebuild NAME makes another one.",
		Args: namedArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &projectionv1.SwitchProjectionRequest{Name: args[0]}
			if len(args) > 1 {
				req.Build = args[1]
			}
			return t.run(cmd, func(ctx context.Context, c projectionv1.ProjectionServiceClient) error {
				reply, err := c.SwitchProjection(ctx, req)
				if err != nil {
					return err
				}
				if t.json {
					return printMessages(cmd.OutOrStdout(), []*projectionv1.Projection{reply.GetProjection()})
				}
				return printProjection(cmd.OutOrStdout(), reply.GetProjection())
			})
		},
	}
	t.addFlags(cmd)
	return cmd
}

func projectionDropCommand() *cobra.Command {
	var t projectionTool
	var force bool
	cmd := &cobra.Command{
		Use:   "drop BUILD",
		Short: "Remove a build that queries are not answered from, with its tables",
		Long: "Remove a build that queries are not answered from, with its tables: one that a rebuild left, or that was filled and is not wanted.\n" +
			"One that is still being filled is removed only with --force: what was done of it is lost, and a rebuild that waits for it ends.\n" +
			"purser projection status NAME lists the builds. A build of another version is removed only when no process of that version runs.",
		Args: namedArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.run(cmd, func(ctx context.Context, c projectionv1.ProjectionServiceClient) error {
				reply, err := c.DropBuild(ctx, &projectionv1.DropBuildRequest{Build: args[0], Force: force})
				if err != nil {
					return err
				}
				if t.json {
					return printMessages(cmd.OutOrStdout(), []*projectionv1.DropBuildResponse{reply})
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s dropped\n", args[0])
				return err
			})
		},
	}
	t.addFlags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "remove the build also if it is still being filled")
	return cmd
}
