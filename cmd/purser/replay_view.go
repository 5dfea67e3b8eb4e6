package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/purserhq/purser/internal/eventlog"
)

// replayPrinter prints what a replay shows, for people or as JSON lines.
type replayPrinter struct {
	out      io.Writer
	json     bool
	changes  bool // of each event what it changed, and not what there is to see after it
	perEvent bool
	events   eventPrinter
	seen     map[string]string // the places of the events so far, by their ids
}

// replayLine is an event as a JSON line.
type replayLine struct {
	*eventView
	Changes []change        `json:"changes,omitempty"`
	State   json.RawMessage `json:"state,omitempty"`
}

// event prints an event with what it changed or what there is to see after it.
func (p *replayPrinter) event(e eventlog.Recorded, known bool, before, after json.RawMessage) error {
	v := p.events.view(e)
	v.Data, v.DataBase64, v.Hidden = nil, nil, ""
	line := replayLine{eventView: v}
	var err error
	switch {
	case !known:
		v.Hidden = "this build does not know it, and passes it over"
	case !p.changes:
		line.State = after
	default:
		if p.perEvent {
			before = json.RawMessage("[]")
		}
		if line.Changes, err = diff(before, after); err != nil {
			return err
		}
	}
	if p.json {
		err = p.line(line)
	} else {
		err = p.text(line)
	}
	p.seen[v.ID] = fmt.Sprintf("%s@%d %s", v.Stream, v.Revision, v.Type)
	return err
}

// state prints what there is to see in the end.
func (p *replayPrinter) state(view json.RawMessage) error {
	if p.json {
		return p.line(view)
	}
	_, err := fmt.Fprintln(p.out, indented(view, ""))
	return err
}

func (p *replayPrinter) line(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = p.out.Write(append(b, '\n'))
	return err
}

func (p *replayPrinter) text(l replayLine) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s@%d  %s  %s\n  position %d", l.Stream, l.Revision, l.Type, l.OccurredAt.UTC().Format(time.RFC3339Nano), l.Position)
	if l.Actor != "" {
		b.WriteString("  actor " + l.Actor)
	}
	b.WriteString("  " + p.cause(l.eventView) + "\n")
	switch {
	case l.Hidden != "":
		b.WriteString("    (" + l.Hidden + ")\n")
	case !p.changes:
		b.WriteString("    " + indented(l.State, "    ") + "\n")
	case len(l.Changes) == 0:
		b.WriteString("    (nothing changed)\n")
	}
	for _, c := range l.Changes {
		b.WriteString("    " + c.String() + "\n")
	}
	_, err := io.WriteString(p.out, b.String()+"\n")
	return err
}

// cause is the event that led to an event, by its place where that was shown before, or the request from outside.
func (p *replayPrinter) cause(v *eventView) string {
	switch place, shown := p.seen[v.CausationID]; {
	case shown:
		return "because of " + place
	case v.CausationID != "":
		return "because of " + v.CausationID
	}
	return "request " + v.RequestID
}

func indented(v json.RawMessage, prefix string) string {
	var b bytes.Buffer
	if json.Indent(&b, v, prefix, "  ") != nil {
		return string(v)
	}
	return b.String()
}
