package eventfile

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/google/uuid"

	"github.com/purserhq/purser/internal/eventlog"
)

// maxLine bounds a line: no event store takes an event as large.
const maxLine = 64 << 20

// Reader reads a file and checks the form of each event.
type Reader struct {
	scanner *bufio.Scanner
	partial bool
	lines   int
	events  int
	ended   bool
}

// NewReader returns a reader of a file. Of a partial file the end may be missing: the trailer, and a part of the last line.
func NewReader(r io.Reader, partial bool) *Reader {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	return &Reader{scanner: s, partial: partial}
}

// Next returns the next event, and [io.EOF] where the file ends as it should. The text of its errors does not quote data.
func (r *Reader) Next() (eventlog.Recorded, error) {
	if !r.scanner.Scan() {
		switch err := r.scanner.Err(); {
		case errors.Is(err, bufio.ErrTooLong):
			return eventlog.Recorded{}, fmt.Errorf("line %d is longer than any event can be", r.lines+1)
		case err != nil:
			return eventlog.Recorded{}, fmt.Errorf("read line %d: %w", r.lines+1, err)
		case !r.ended && !r.partial:
			return eventlog.Recorded{}, fmt.Errorf("the file was cut off: it has %d events and no trailer", r.events)
		}
		return eventlog.Recorded{}, io.EOF
	}
	r.lines++
	if r.ended {
		return eventlog.Recorded{}, fmt.Errorf("line %d: the file goes on after its trailer", r.lines)
	}
	l, err := parse(r.scanner.Bytes())
	switch {
	case err != nil && r.partial && !json.Valid(r.scanner.Bytes()) && !r.scanner.Scan():
		return eventlog.Recorded{}, io.EOF // the line that was being written when the file was cut off
	case err != nil:
		return eventlog.Recorded{}, fmt.Errorf("line %d: %w", r.lines, err)
	case l.Trailer == nil:
		r.events++
		return l.event(), nil
	case l.Trailer.Events != r.events:
		return eventlog.Recorded{}, fmt.Errorf("the file has %d events, and its trailer says %d", r.events, l.Trailer.Events)
	}
	r.ended = true
	return r.Next()
}

func parse(text []byte) (line, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var l line
	switch err := d.Decode(&l); {
	case err == io.EOF: // which has a meaning to the caller
		return l, errors.New("the line is empty")
	case err != nil:
		return l, err
	}
	if len(bytes.TrimSpace(text[d.InputOffset():])) > 0 {
		return l, errors.New("more than one JSON object")
	}
	if l.Trailer != nil {
		return l, nil
	}
	switch {
	case l.Stream == "" || l.Type == "":
		return l, errors.New("an event needs a stream and a type")
	case l.Revision == nil || *l.Revision < 0:
		return l, errors.New("an event needs a revision")
	case l.ID == uuid.Nil:
		return l, errors.New("an event needs an id")
	case l.ContentType != contentTypeJSON && l.ContentType != contentTypeBinary:
		return l, fmt.Errorf("an event store has no content type %q", l.ContentType)
	case l.Created.UTC().Year() < 0 || l.Created.UTC().Year() > 9999:
		return l, errors.New("an event was created in the years 0 to 9999")
	case l.Data != nil && l.DataBase64 != nil, l.Metadata != nil && l.MetadataBase64 != nil:
		return l, errors.New("an event has its data and its metadata once")
	}
	return l, nil
}

func (l line) event() eventlog.Recorded {
	e := eventlog.Recorded{
		ID: l.ID, Stream: l.Stream, Revision: *l.Revision, Type: l.Type, ContentType: l.ContentType, Created: l.Created,
		Data: l.Data, Metadata: l.Metadata,
	}
	if l.DataBase64 != nil {
		e.Data = l.DataBase64
	}
	if l.MetadataBase64 != nil {
		e.Metadata = l.MetadataBase64
	}
	return e
}
