package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	projectionv1 "github.com/purserhq/purser/proto/purser/projection/v1"
)

// printMessages prints messages as JSON lines, with what is empty.
func printMessages[M proto.Message](w io.Writer, messages []M) error {
	for _, m := range messages {
		text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
		if err != nil {
			return err
		}
		var line bytes.Buffer
		if err := json.Compact(&line, text); err != nil { // its spacing varies on purpose
			return err
		}
		if _, err := fmt.Fprintln(w, line.String()); err != nil {
			return err
		}
	}
	return nil
}

func printProjections(w io.Writer, all []*projectionv1.Projection) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tVERSION\tSTATE\tLAG\tPOSITION\tPARKED\tBUILD\tOTHER BUILDS\tDERIVED")
	for _, p := range all {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", p.GetName(), p.GetVersion(), stateOf(p), lagOf(p), p.GetPosition(), p.GetParkedKeys(),
			p.GetBuild(), otherBuilds(p), strings.Join(p.GetDerived(), " "))
	}
	return t.Flush()
}

// otherBuilds are those beside the one that queries are answered from, each with its state.
func otherBuilds(p *projectionv1.Projection) string {
	var others []string
	for _, b := range p.GetBuilds() {
		if b.GetName() != p.GetBuild() {
			others = append(others, b.GetName()+" "+buildStateOf(b))
		}
	}
	if len(others) == 0 {
		return "-"
	}
	return strings.Join(others, ", ")
}

func printProjection(w io.Writer, p *projectionv1.Projection) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	state := stateOf(p)
	if p.GetPauseTime() != nil {
		state += " since " + timeOf(p.GetPauseTime())
	}
	parked := fmt.Sprint(p.GetParkedKeys())
	if p.GetOldestParkedTime() != nil {
		parked += ", the first one since " + timeOf(p.GetOldestParkedTime())
	}
	head := fmt.Sprint(p.GetHeadPosition())
	if p.GetHeadPosition() == 0 {
		head = "unknown: the event store does not answer"
	}
	for _, line := range [][2]string{
		{"name", p.GetName()}, {"version", fmt.Sprint(p.GetVersion())}, {"build", p.GetBuild()},
		{"categories", strings.Join(p.GetCategories(), " ")}, {"derived", strings.Join(p.GetDerived(), " ")},
		{"state", state}, {"lag", lagOf(p)}, {"position", fmt.Sprint(p.GetPosition())}, {"head", head}, {"parked", parked},
	} {
		fmt.Fprintf(t, "%s\t%s\n", line[0], line[1])
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(t, "\nBUILD\tSTATE\tPOSITION\tEVENTS\tPARKED\tPROCESSES\tPARTITIONS\tMADE")
	for _, b := range p.GetBuilds() {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", b.GetName(), buildStateOf(b), b.GetPosition(), b.GetEvents(),
			b.GetParkedKeys(), b.GetProcesses(), b.GetPartitions(), timeOf(b.GetCreateTime()))
	}
	return t.Flush()
}

func printParked(w io.Writer, all []*projectionv1.ParkedKey) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PROJECTION\tKEY\tPOSITION\tSINCE\tCAUSE")
	for _, k := range all {
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\n", k.GetProjection(), k.GetKey(), k.GetPosition(), timeOf(k.GetParkTime()), oneLine(k.GetCause()))
	}
	return t.Flush()
}

func stateOf(p *projectionv1.Projection) string { return shortName(p.GetState(), "PROJECTION_STATE_") }

func buildStateOf(b *projectionv1.Build) string { return shortName(b.GetState(), "BUILD_STATE_") }

func lagOf(p *projectionv1.Projection) string {
	return p.GetLag().AsDuration().Round(10 * time.Millisecond).String()
}

func timeOf(t *timestamppb.Timestamp) string { return t.AsTime().Format(time.RFC3339) }

// oneLine puts a text of several lines into one of a table.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
