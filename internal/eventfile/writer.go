// Package eventfile is the form in which events leave one log and enter another: a file of JSON lines, one event a line,
// and a last line that says how many there are.
//
// It promises that an event comes back exactly as it was stored (id, type, content type, and every byte of data and
// metadata), that a file which was cut off is recognised, and that an import may be interrupted and repeated at will: each
// event ends up in the store once, at its revision, or the import fails and says where.
//
// How: JSON is embedded as it is, so that the file can be read and searched, wherever it survives that unchanged; all else
// is base64. An import appends at exact revisions with the ids of the file, so that the store itself recognises what it
// has.
package eventfile

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/purserhq/purser/internal/eventlog"
)

// The content types that an event can have in an event store.
const (
	contentTypeJSON   = "application/json"
	contentTypeBinary = "application/octet-stream"
)

// line is one line of a file: an event or the trailer.
type line struct {
	header
	Data           json.RawMessage `json:"data"`
	DataBase64     []byte          `json:"dataBase64"`
	Metadata       json.RawMessage `json:"metadata"`
	MetadataBase64 []byte          `json:"metadataBase64"`
	Trailer        *trailer        `json:"trailer"`
}

type header struct {
	Stream      string             `json:"stream"`
	Revision    *eventlog.Revision `json:"revision"`
	ID          uuid.UUID          `json:"id"`
	Type        string             `json:"type"`
	ContentType string             `json:"contentType"`
	Created     time.Time          `json:"created"`
}

type trailer struct {
	Events int `json:"events"`
}

// Writer writes a file. It is not whole before [Writer.Close] has returned nil.
type Writer struct {
	w       *bufio.Writer
	line    []byte
	trailer trailer
}

// NewWriter returns a writer of the events of one file.
func NewWriter(w io.Writer) *Writer { return &Writer{w: bufio.NewWriter(w)} }

// Write adds an event.
func (w *Writer) Write(e eventlog.Recorded) error {
	if !utf8.ValidString(e.Stream) {
		return fmt.Errorf("the name of stream %q is no UTF-8", e.Stream)
	}
	head, err := json.Marshal(header{
		Stream: e.Stream, Revision: &e.Revision, ID: e.ID, Type: e.Type, ContentType: e.ContentType, Created: e.Created.UTC(),
	})
	if err != nil {
		return fmt.Errorf("write %s@%d: %w", e.Stream, e.Revision, err)
	}
	b := append(w.line[:0], head[:len(head)-1]...)
	b = appendBytes(b, "data", e.Data, e.ContentType == contentTypeJSON)
	b = appendBytes(b, "metadata", e.Metadata, true)
	w.line = append(b, "}\n"...)
	w.trailer.Events++
	_, err = w.w.Write(w.line)
	return err
}

// Close writes the trailer. It leaves the underlying writer open.
func (w *Writer) Close() error {
	last, err := json.Marshal(struct {
		Trailer trailer `json:"trailer"`
	}{w.trailer})
	if err != nil {
		return err
	}
	if _, err := w.w.Write(append(last, '\n')); err != nil {
		return err
	}
	return w.w.Flush()
}

// Events is the number of events written so far.
func (w *Writer) Events() int { return w.trailer.Events }

// appendBytes adds a field of a line, embedded where it may be and survives it; no field stands for no bytes.
func appendBytes(b []byte, name string, value []byte, embed bool) []byte {
	switch {
	case len(value) == 0:
		return b
	case embed && survives(value):
		b = append(b, `,"`+name+`":`...)
		return append(b, value...)
	}
	b = append(b, `,"`+name+`Base64":"`...)
	return append(base64.StdEncoding.AppendEncode(b, value), '"')
}

// survives tells whether JSON comes back byte for byte when it is embedded in a line: not if it has space around it or a
// line's end within, is null, which reads as nothing, or is nested so deep that one level more is too much.
func survives(value []byte) bool {
	return len(bytes.TrimSpace(value)) == len(value) && !bytes.ContainsAny(value, "\r\n") && string(value) != "null" &&
		utf8.Valid(value) && json.Valid(value) && json.Valid(append(append([]byte{'['}, value...), ']'))
}
