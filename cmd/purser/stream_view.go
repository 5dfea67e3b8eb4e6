package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
)

// eventView is an event as an operator sees it.
type eventView struct {
	Stream        string            `json:"stream"`
	Revision      eventlog.Revision `json:"revision"`
	Position      eventlog.Position `json:"position"`
	ID            string            `json:"id"`
	Type          string            `json:"type"`
	SchemaVersion int               `json:"schemaVersion,omitempty"`
	ContentType   string            `json:"contentType"`
	OccurredAt    time.Time         `json:"occurredAt"`
	Created       time.Time         `json:"created"`
	Actor         string            `json:"actor,omitempty"`
	CausationID   string            `json:"causationId,omitempty"`
	CorrelationID string            `json:"correlationId,omitempty"`
	RequestID     string            `json:"requestId,omitempty"`
	// Data is the event's data, or DataBase64 where it is no JSON and nothing is known of it.
	Data       json.RawMessage `json:"data,omitempty"`
	DataBase64 []byte          `json:"dataBase64,omitempty"`
	// Hidden says why there is no data.
	Hidden string `json:"hidden,omitempty"`
}

// eventPrinter prints events for people or as JSON lines. Unless it shows what is personal, it shows of the data only
// what the schema says is not: an event is read through the current schema, and one that it does not know is not shown.
type eventPrinter struct {
	out      io.Writer
	schema   *eventschema.Registry
	json     bool
	personal bool
}

func (p *eventPrinter) print(e eventlog.Recorded) error {
	v := p.view(e)
	if p.json {
		line, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("show %s@%d: %w", e.Stream, e.Revision, err)
		}
		_, err = p.out.Write(append(line, '\n'))
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s@%d  %s", v.Stream, v.Revision, v.Type)
	if v.SchemaVersion > 0 {
		fmt.Fprintf(&b, " v%d", v.SchemaVersion)
	}
	fmt.Fprintf(&b, "  %s\n  position %d", v.OccurredAt.UTC().Format(time.RFC3339Nano), v.Position)
	for _, known := range [][2]string{{"actor", v.Actor}, {"causation", v.CausationID}, {"correlation", v.CorrelationID}} {
		if known[1] != "" {
			fmt.Fprintf(&b, "  %s %s", known[0], known[1])
		}
	}
	b.WriteString("\n  " + v.text() + "\n\n")
	_, err := io.WriteString(p.out, b.String())
	return err
}

// text is the data for people.
func (v *eventView) text() string {
	var indented bytes.Buffer
	switch {
	case v.Hidden != "":
		return "(" + v.Hidden + ")"
	case len(v.Data) > 0 && json.Indent(&indented, v.Data, "  ", "  ") == nil:
		return indented.String()
	case len(v.DataBase64) > 0:
		return "base64 " + base64.StdEncoding.EncodeToString(v.DataBase64)
	}
	return "(no data)"
}

func (p *eventPrinter) view(e eventlog.Recorded) *eventView {
	v := &eventView{
		Stream: e.Stream, Revision: e.Revision, Position: e.Position, ID: e.ID.String(), Type: e.Type, ContentType: e.ContentType,
		OccurredAt: e.Created, Created: e.Created,
	}
	var m eventlog.Metadata
	if json.Unmarshal(e.Metadata, &m) == nil {
		v.SchemaVersion, v.Actor, v.RequestID = m.SchemaVersion, m.Actor, m.RequestID
		v.CausationID, v.CorrelationID = m.CausationID, m.CorrelationID
		if !m.OccurredAt.IsZero() {
			v.OccurredAt = m.OccurredAt
		}
	}
	switch isJSON := e.ContentType == eventschema.ContentTypeJSON && json.Valid(e.Data); {
	case len(e.Data) == 0:
	case p.personal && isJSON:
		v.Data = e.Data
	default:
		data, err := p.known(e, m.SchemaVersion)
		switch {
		case err == nil:
			v.Data = data
		case p.personal:
			v.DataBase64 = e.Data
		default:
			v.Hidden = fmt.Sprintf("%s not shown: %v; --personal shows them as they are stored", plural(len(e.Data), "byte"), err)
		}
	}
	return v
}

// known returns the JSON of an event's data read through the schema: of several events, which an old one may have become,
// as an array.
func (p *eventPrinter) known(e eventlog.Recorded, version int) (json.RawMessage, error) {
	messages, err := p.schema.Decode(e.Type, version, e.ContentType, e.Data)
	if err != nil {
		return nil, err
	}
	all := make([]json.RawMessage, len(messages))
	for i, m := range messages {
		if !p.personal {
			eventschema.Redact(m)
		}
		if all[i], err = (protojson.MarshalOptions{UseProtoNames: true}).Marshal(m); err != nil {
			return nil, err
		}
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return json.Marshal(all)
}
