package eventfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/purserhq/purser/internal/eventfile"
	"github.com/purserhq/purser/internal/eventlog"
)

// write returns the file of some events.
func write(t testing.TB, events ...eventlog.Recorded) string {
	t.Helper()
	var b bytes.Buffer
	w := eventfile.NewWriter(&b)
	for _, e := range events {
		if err := w.Write(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func readAll(file string, partial bool) ([]eventlog.Recorded, error) {
	r := eventfile.NewReader(strings.NewReader(file), partial)
	var events []eventlog.Recorded
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return events, nil
		}
		if err != nil {
			return events, err
		}
		events = append(events, e)
	}
}

func event(stream string, revision eventlog.Revision, data string) eventlog.Recorded {
	return eventlog.Recorded{
		ID: uuid.New(), Stream: stream, Revision: revision, Type: "Anything", ContentType: "application/json",
		Data: []byte(data), Metadata: []byte(`{"occurredAt":"2026-01-02T03:04:05.000000006Z"}`), Created: time.Unix(7, 8).UTC(),
	}
}

func same(a, b eventlog.Recorded) bool {
	return a.ID == b.ID && a.Stream == b.Stream && a.Revision == b.Revision && a.Type == b.Type && a.ContentType == b.ContentType &&
		bytes.Equal(a.Data, b.Data) && bytes.Equal(a.Metadata, b.Metadata) && a.Created.Equal(b.Created)
}

// Whatever the bytes, they come back as they were.
func TestEventsComeBackByteForByte(t *testing.T) {
	deep := strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000)
	awkward := []string{
		"", "null", "{}", `{"a": 1,  "b":[1.0, 1e400, 9007199254740993]}`, `{"a":1}` + "\n", " {}", "{\r\n}", `{"a":1,"a":2}`, `"` + "\u2028<&>" + `"`,
		`1,"stream":"x"`, `{}}`, `"\ud800"`, "\"\xff\"", "\xff\xfe", "\x00", deep, deep[1:], `"é"`, "true",
	}
	bytesOf := rapid.OneOf(rapid.SampledFrom(awkward), rapid.StringOf(rapid.SampledFrom([]rune("{}[]\",:\\n1 \n\re"))), rapid.String())
	rapid.Check(t, func(rt *rapid.T) {
		e := event(rapid.StringN(1, 20, -1).Draw(rt, "stream"), 3, bytesOf.Draw(rt, "data"))
		e.Metadata = []byte(bytesOf.Draw(rt, "metadata"))
		e.Type = rapid.StringN(1, 20, -1).Draw(rt, "type")
		e.ContentType = rapid.SampledFrom([]string{"application/json", "application/octet-stream"}).Draw(rt, "content type")
		file := write(t, e)
		if lines := strings.Count(file, "\n"); lines != 2 {
			rt.Fatalf("%d lines for one event: %q", lines, file)
		}
		got, err := readAll(file, false)
		if err != nil || len(got) != 1 || !same(got[0], e) {
			rt.Fatalf("%+v became %+v, %v", e, got, err)
		}
	})
}

func TestReadableDataStaysReadable(t *testing.T) {
	file := write(t, event("order-1", 0, `{"order_id": "7",  "recipient":"Ada"}`))
	if !strings.Contains(file, `"data":{"order_id": "7",  "recipient":"Ada"}`) {
		t.Error(file)
	}
}

func TestFilesThatAreNotWholeAreTold(t *testing.T) {
	whole := write(t, event("a-1", 0, "{}"), event("a-1", 1, "{}"))
	lines := strings.SplitAfter(whole, "\n")
	for name, c := range map[string]struct {
		file     string
		says     string
		partial  int // events read as a partial file, or -1
		partSays string
	}{
		"whole":                {whole, "", 2, ""},
		"no line's end":        {strings.TrimSuffix(whole, "\n"), "", 2, ""},
		"no trailer":           {lines[0] + lines[1], "cut off", 2, ""},
		"cut in a line":        {lines[0] + lines[1][:20], "line 2", 1, ""},
		"cut in the trailer":   {lines[0] + lines[1] + lines[2][:5], "line 3", 2, ""},
		"broken in the middle": {lines[0][:20] + "\n" + lines[1] + lines[2], "line 1", -1, "line 1"},
		"a line missing":       {lines[0] + lines[2], "1 events, and its trailer says 2", -1, "trailer says 2"},
		"two files":            {whole + whole, "goes on after its trailer", -1, "goes on"},
		"empty":                {"", "cut off", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readAll(c.file, false)
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("want %q: %v", c.says, err)
			}
			events, err := readAll(c.file, true)
			if (err == nil) != (c.partial >= 0) || err == nil && len(events) != c.partial || err != nil && !strings.Contains(err.Error(), c.partSays) {
				t.Errorf("as a partial file, want %d, %q: %d events, %v", c.partial, c.partSays, len(events), err)
			}
		})
	}
}

func TestMalformedEventsAreRefusedWithoutQuotingThem(t *testing.T) {
	good := `{"stream":"a-1","revision":0,"id":"6a4c6e5e-55e9-4a0c-8a38-6ad2c8f1a001","type":"T","contentType":"application/json","created":"2026-01-02T03:04:05Z","data":{"name":"Ada"}}`
	if _, err := readAll(good, true); err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{`"a-1"`, `""`}, {`"revision":0,`, ``}, {`"revision":0`, `"revision":-1`}, {`"id":"6a4c6e5e-55e9-4a0c-8a38-6ad2c8f1a001",`, ``},
		{`"T"`, `""`}, {`"application/json"`, `"text/plain"`}, {`"data"`, `"daten"`}, {`"data":`, `"dataBase64":"AA==","data":`},
		{`"data":{"name":"Ada"}`, `"data":{"name":"Ada"},"metadata":{},"metadataBase64":"AA=="`}, {`"Ada"}}`, `"Ada"}} {}`}, {`:{"name":"Ada"}`, `Base64:"Ada"`}, {good, ""},
		{"2026-01-02T03:04:05Z", "9999-12-31T23:59:59-01:00"},
	} {
		broken := strings.Replace(good, change[0], change[1], 1)
		_, err := readAll(broken+"\n{}\n", true)
		if err == nil || !strings.Contains(err.Error(), "line 1: ") || strings.Contains(err.Error(), "Ada") {
			t.Errorf("%s: %v", broken, err)
		}
	}
}

func TestStreamsThatCannotBeImportedAreFound(t *testing.T) {
	tombstone := event("deleted-1", 1<<63-1, "")
	tombstone.Type = "$streamDeleted"
	h, err := eventfile.Check(eventfile.NewReader(strings.NewReader(write(t,
		event("good-1", 0, "{}"), event("cut-1", 4, "{}"), event("gap-1", 0, "{}"), event("good-1", 1, "{}"), event("cut-1", 5, "{}"),
		event("gap-1", 2, "{}"), event("deleted-1", 0, "{}"), tombstone, event("$$good-1", 0, "{}"), event("twice-1", 0, "{}"), event("twice-1", 0, "{}"),
		event("purserstore-identity", 0, "{}"))), false))
	if err != nil {
		t.Fatal(err)
	}
	if n, first := h.Unfit(); n != 6 || first.Stream != "cut-1" || first.Revision != 4 {
		t.Errorf("%d, %v", n, first)
	}
	for stream, fits := range map[string]bool{
		"good-1": true, "cut-1": false, "gap-1": false, "deleted-1": false, "$$good-1": false, "twice-1": false, "purserstore-identity": false,
	} {
		if h.Fits(stream) != fits {
			t.Errorf("%s fits: %t", stream, !fits)
		}
	}
}

// Whatever a file holds, it is read or refused; and what is read is written so that it reads the same.
func FuzzReader(f *testing.F) {
	f.Add(write(f, event("a-1", 0, `{"a":1}`), event("a-1", 1, "\x00")))
	f.Add(`{"trailer":{"events":0}}`)
	f.Add(`{"stream":"a","revision":0,"id":"6a4c6e5e-55e9-4a0c-8a38-6ad2c8f1a001","type":"T","contentType":"application/json","data":null}`)
	f.Fuzz(func(t *testing.T, file string) {
		events, err := readAll(file, true)
		if err != nil {
			return
		}
		again, err := readAll(write(t, events...), false)
		if err != nil || len(again) != len(events) {
			t.Fatalf("%d events became %d, %v", len(events), len(again), err)
		}
		for i, e := range events {
			if !same(e, again[i]) {
				t.Errorf("%+v became %+v", e, again[i])
			}
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	w := eventfile.NewWriter(io.Discard)
	e := event("order-1", 0, fmt.Sprintf(`{"order_id":"7","note":%q}`, strings.Repeat("x", 200)))
	for b.Loop() {
		if err := w.Write(e); err != nil {
			b.Fatal(err)
		}
	}
}
