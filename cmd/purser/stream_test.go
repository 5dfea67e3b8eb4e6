package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// streamStore is an event store and the commands on its streams.
type streamStore struct {
	t   *testing.T
	url string
	log *eventlog.Log
}

func newStreamStore(t *testing.T) *streamStore {
	t.Helper()
	return onStore(t, "esdb://"+startStore(t, t.TempDir(), "127.0.0.1:0").addr+"?tls=false")
}

func onStore(t *testing.T, url string) *streamStore {
	t.Helper()
	l, err := eventlog.Open(url, eventschema.New(), quiet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return &streamStore{t: t, url: url, log: l}
}

// try runs `purser stream` and returns what it prints.
func (s *streamStore) try(ctx context.Context, in io.Reader, args ...string) (stdout, stderr string, err error) {
	var out, errOut bytes.Buffer
	root := rootCommand()
	root.SetArgs(append(append([]string{"stream"}, args...), "--eventstore-url", s.url))
	root.SetIn(in)
	root.SetOut(&out)
	root.SetErr(&errOut)
	err = root.ExecuteContext(ctx)
	return out.String(), errOut.String(), err
}

func (s *streamStore) run(args ...string) (stdout string) {
	s.t.Helper()
	out, _, err := s.try(s.t.Context(), nil, args...)
	if err != nil {
		s.t.Fatalf("purser stream %v: %v", args, err)
	}
	return out
}

func (s *streamStore) append(stream string, expected eventlog.Revision, events ...eventlog.Recorded) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), settle)
	defer cancel()
	if _, err := s.log.AppendRecorded(ctx, stream, expected, events); err != nil {
		s.t.Fatal(err)
	}
}

// head is the end of the log, by which a test sees that nothing was written.
func (s *streamStore) head() eventlog.Position {
	s.t.Helper()
	p, err := s.log.Head(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func foreign(eventType, data string) eventlog.Recorded {
	return eventlog.Recorded{
		ID: uuid.New(), Type: eventType, ContentType: eventschema.ContentTypeJSON, Data: []byte(data),
		Metadata: []byte(`{"occurredAt":"2026-01-02T03:04:05.000000006Z","schemaVersion":1,"actor":"clerk","$causationId":"cause-1"}`),
	}
}

// Everything that a name is in: an event as it is written today, the same in binary, one of an old version, and two that
// can't be read.
func (s *streamStore) appendPersonal(stream, name string) {
	s.t.Helper()
	placed := &orderevent.OrderPlaced{
		OrderId: "7", CustomerId: "c-1", PaymentMethod: proto.String(name),
		DeliveryAddress: &typev1.Address{Recipient: proto.String(name), Line1: proto.String(name), PostalCode: "3011 AA", CountryCode: "NL"},
	}
	enc, err := eventschema.New().Encode(placed)
	if err != nil {
		s.t.Fatal(err)
	}
	current := foreign("OrderPlaced", string(enc.Data))
	current.Metadata = bytes.Replace(current.Metadata, []byte(`"schemaVersion":1`), []byte(`"schemaVersion":2`), 1)
	binary := current
	binary.ID, binary.ContentType = uuid.New(), eventschema.ContentTypeBinary
	if binary.Data, err = proto.Marshal(placed); err != nil {
		s.t.Fatal(err)
	}
	s.append(stream, eventlog.NoStream, current, binary,
		foreign("OrderPlaced", fmt.Sprintf(`{"order_id":"7","delivery_address":{"recipient":%q,"postal_code":"3011 AA"},"nickname":%[1]q}`, name)),
		foreign("OrderEnchanted", fmt.Sprintf(`{"by":%q}`, name)),
		foreign("OrderConfirmed", name))
}

func TestPersonalDataIsShownOnlyWhereItIsAskedFor(t *testing.T) {
	s := newStreamStore(t)
	const name, events = "Ada Lovelace", 5
	s.appendPersonal("order-7", name)
	encodedName := "QWRhIExvdmVsYWNl"
	for _, format := range [][]string{nil, {"--json"}} {
		masked := s.run(append([]string{"show", "order-7"}, format...)...)
		if strings.Contains(masked, "Ada") || strings.Contains(masked, encodedName) || strings.Count(masked, eventschema.Redacted) != 3+3+1 {
			t.Errorf("masked: %s", masked)
		}
		if strings.Count(masked, "3011 AA") != 3 || !strings.Contains(masked, "OrderEnchanted") || !strings.Contains(masked, "clerk") || !strings.Contains(masked, "cause-1") {
			t.Errorf("too much is masked: %s", masked)
		}
		full := s.run(append([]string{"show", "order-7", "--personal"}, format...)...)
		if strings.Count(full, name) != 3+3+2+1 || strings.Count(full, encodedName) != 1 {
			t.Errorf("with --personal: %s", full)
		}
	}
	lines := strings.Split(strings.TrimSpace(s.run("show", "order-7", "--json", "--from", "1", "--limit", "2")), "\n")
	if len(lines) != 2 {
		t.Fatalf("%q", lines)
	}
	var v eventView
	if err := json.Unmarshal([]byte(lines[0]), &v); err != nil || v.Revision != 1 || v.SchemaVersion != 2 || v.OccurredAt.Nanosecond() != 6 || v.Actor != "clerk" {
		t.Errorf("%+v, %v", v, err)
	}
	if text := s.run("show", "order-7", "--limit", "1"); !strings.HasPrefix(text, "order-7@0  OrderPlaced v2  2026-01-02T03:04:05.000000006Z\n") {
		t.Error(text)
	}
	if all := s.run("show", "order-7", "--json"); strings.Count(all, "\n") != events {
		t.Errorf("%d lines", strings.Count(all, "\n"))
	}
	if _, _, err := s.try(t.Context(), nil, "show", "order-8"); err == nil {
		t.Error("a stream that is not there was shown")
	}
}

func TestStreamsAreListed(t *testing.T) {
	s := newStreamStore(t)
	for i := range 9 {
		s.append(fmt.Sprintf("order-%d", 9-i), eventlog.NoStream, foreign("A", "{}"))
	}
	s.append("order-3", 0, foreign("A", "{}"), foreign("A", "{}"))
	s.append("payment-1", eventlog.NoStream, foreign("A", "{}"))
	if _, err := s.log.Identity(t.Context()); err != nil {
		t.Fatal(err)
	}
	list := func(args ...string) (names string, last streamSummary) {
		for line := range strings.Lines(s.run(append([]string{"ls", "--json"}, args...)...)) {
			last = streamSummary{}
			if err := json.Unmarshal([]byte(line), &last); err != nil {
				t.Fatal(err)
			}
			names += last.Stream + " "
		}
		return names, last
	}
	if names, last := list("--limit", "3"); names != "order-1 order-2 order-3 " || last.Events != 3 || last.LastRevision != 2 || last.LastTime.Nanosecond() != 6 {
		t.Errorf("%s, %+v", names, last)
	}
	if names, _ := list("--prefix", "payment"); names != "payment-1 " {
		t.Error(names)
	}
	all, _ := list()
	withSystem, _ := list("--system")
	if strings.Count(all, " ") != 10 || strings.Contains(all, "identity") || !strings.Contains(withSystem, "purserstore-identity") {
		t.Errorf("%s; with the system's %s", all, withSystem)
	}
	if text := s.run("ls", "--prefix", "order-3"); !strings.Contains(text, "order-3  3       2              2026-01-02T03:04:05Z") {
		t.Error(text)
	}
}

// tail goes on over an outage of the store, and shows what its filter lets through.
func TestTailFollowsTheLog(t *testing.T) {
	dir := t.TempDir()
	store := startStore(t, dir, "127.0.0.1:0")
	s := onStore(t, "esdb://"+store.addr+"?tls=false")
	s.append("order-1", eventlog.NoStream, foreign("A", "{}"))
	s.append("order-2", eventlog.NoStream, foreign("A", "{}"))

	ctx, cancel := context.WithCancel(t.Context())
	out, told := &lockedBuffer{}, &lockedBuffer{}
	root := rootCommand()
	root.SetArgs([]string{"stream", "tail", "--json", "--filter", "/^(order|payment)-1$/", "--from", "start", "--eventstore-url", s.url})
	root.SetOut(out)
	root.SetErr(told)
	ended := make(chan error, 1)
	go func() { ended <- root.ExecuteContext(ctx) }()
	shows := func(want string) {
		t.Helper()
		eventually(t, settle, func() error {
			got := ""
			for line := range strings.Lines(out.String()) {
				var v eventView
				if err := json.Unmarshal([]byte(line), &v); err != nil {
					return err
				}
				got += fmt.Sprintf("%s@%d ", v.Stream, v.Revision)
			}
			if got != want {
				return fmt.Errorf("tail shows %q, want %q", got, want)
			}
			return nil
		})
	}
	shows("order-1@0 ")
	store.stop(t)
	startStore(t, dir, store.addr)
	s.append("order-2", 0, foreign("A", "{}"))
	s.append("payment-1", eventlog.NoStream, foreign("A", "{}"))
	shows("order-1@0 payment-1@0 ")
	if !strings.Contains(told.String(), "is away") {
		t.Errorf("the outage was not told: %s", told)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for _, from := range []string{"-1", "yesterday", "9000000000000000000"} {
		if _, _, err := s.try(t.Context(), nil, "tail", "--from", from); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("--from %s: %v", from, err)
		}
	}
}

func TestExportsThatAreNotWholeAreRefused(t *testing.T) {
	s, other := newStreamStore(t), newStreamStore(t)
	s.append("order-1", eventlog.NoStream, foreign("A", "{}"), foreign("A", "{}"))
	s.append("order-10", eventlog.NoStream, foreign("A", "{}"))
	s.append("payment-1", eventlog.NoStream, foreign("A", "{}"))
	for args, want := range map[string]int{"order-1": 2, "--prefix order-1": 3, "--all": 4} {
		if out := s.run(append([]string{"export"}, strings.Fields(args)...)...); strings.Count(out, "\n") != want+1 {
			t.Errorf("export %s: %s", args, out)
		}
	}
	for _, args := range [][]string{{}, {"order-1", "--all"}, {"--prefix", "a", "--all"}, {"order-404"}} {
		if _, _, err := s.try(t.Context(), nil, append([]string{"export"}, args...)...); err == nil {
			t.Errorf("export %v did not fail", args)
		}
	}

	dir := t.TempDir()
	file := filepath.Join(dir, "all.jsonl")
	s.run("export", "--all", "--output", file)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	cut := filepath.Join(dir, "cut.jsonl")
	lines := bytes.SplitAfter(whole, []byte("\n"))
	if err := os.WriteFile(cut, bytes.Join(lines[:3], nil), 0o600); err != nil {
		t.Fatal(err)
	}
	before := other.head()
	if _, _, err := other.try(t.Context(), nil, "import", cut); err == nil || !strings.Contains(err.Error(), "nothing was written") || other.head() != before {
		t.Errorf("%v", err)
	}
	if out := other.run("import", cut, "--partial"); out != "3 events added, 0 there before, 0 left out\n" {
		t.Error(out)
	}
	if out, _, err := other.try(t.Context(), bytes.NewReader(whole), "import", "-"); err != nil || out != "1 event added, 3 there before, 0 left out\n" {
		t.Errorf("%q, %v", out, err)
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	gone := filepath.Join(dir, "gone.jsonl")
	if _, _, err := s.try(ended, nil, "export", "--all", "--output", gone); err == nil {
		t.Error("an export that was interrupted did not fail")
	}
	failed := errors.New("disk full")
	if err := writeWhole(gone, func(w io.Writer) error { _, _ = w.Write(whole); return failed }); !errors.Is(err, failed) {
		t.Errorf("%v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*gone*")); err != nil || len(left) > 0 {
		t.Errorf("an export that failed left %v, %v", left, err)
	}
}

func TestStreamsThatCannotBeImportedAreToldAndLeftOut(t *testing.T) {
	s, other := newStreamStore(t), newStreamStore(t)
	s.append("$$stock-1", eventlog.NoStream, foreign("$metadata", `{"$maxCount":1}`))
	file := filepath.Join(t.TempDir(), "file.jsonl")
	_, told, err := s.try(t.Context(), nil, "export", "$$stock-1", "--output", file)
	if err != nil || !strings.Contains(told, "stream $$stock-1 can't be imported: at revision 0, it is the event store's own") {
		t.Errorf("%s, %v", told, err)
	}

	s.append("stock-1", eventlog.NoStream, foreign("A", "{}"))
	s.append("snapshot_stock-1", eventlog.NoStream, foreign("A", "{}"))
	s.append("snapshot_stock-1", 0, foreign("A", "{}"))
	truncated := regexp.MustCompile(`.*snapshot_stock-1","revision":0.*\n`).ReplaceAllString(s.run("export", "--all"), "")
	truncated = strings.Replace(truncated, `{"events":3}`, `{"events":2}`, 1)
	if err := os.WriteFile(file, []byte(truncated), 0o600); err != nil {
		t.Fatal(err)
	}
	before := other.head()
	if _, _, err := other.try(t.Context(), nil, "import", file); err == nil || !strings.Contains(err.Error(), "snapshot_stock-1") || other.head() != before {
		t.Errorf("%v", err)
	}
	if out := other.run("import", file, "--skip-unfit"); out != "1 event added, 0 there before, 1 left out\n" {
		t.Error(out)
	}
}

func TestAStoreThatDoesNotAnswerIsToldWithoutThePassword(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	s := &streamStore{t: t, url: "esdb://admin:s3cret@" + nobody.Addr().String() + "?tls=false"}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, told, err := s.try(ctx, nil, "ls")
	if want := "the event store at " + nobody.Addr().String() + " does not answer: connection refused"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if strings.Contains(told, "s3cret") {
		t.Error(told)
	}
}
