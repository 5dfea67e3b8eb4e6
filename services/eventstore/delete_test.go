package eventstore_test

import (
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Refused deletions are errors, also where an append's wrong version is an ordinary answer.
func TestRefusedDeletions(t *testing.T) {
	s := start(t, t.TempDir())
	es, c := connect(t, s.url()), streams.NewStreamsClient(dial(t, s.Addr()))
	appendTo(t, es, "live", esdb.NoStream{}, happened(3)...)
	tombstoneStream(t, es, "buried")
	wrong := func(stream, expected, actual string) map[string]string {
		return map[string]string{
			"exception": "wrong-expected-version", "stream-name": stream, "expected-version": expected, "actual-version": actual,
		}
	}
	buried := map[string]string{"exception": "stream-deleted", "stream-name": "buried"}
	for _, tt := range []struct {
		stream   string
		expected *uint64 // nil is any; 99 is none at all
		code     codes.Code
		trailers map[string]string
	}{
		{"live", ptr(1), codes.FailedPrecondition, wrong("live", "1", "2")},
		{"never", ptr(7), codes.FailedPrecondition, wrong("never", "7", "")},
		{"buried", nil, codes.FailedPrecondition, buried},
		{"$all", nil, codes.PermissionDenied, map[string]string{"exception": "access-denied"}},
		{"", nil, codes.InvalidArgument, nil},
		{"live", ptr(99), codes.InvalidArgument, nil},
	} {
		id := &shared.StreamIdentifier{StreamName: []byte(tt.stream)}
		del := &streams.DeleteReq_Options{StreamIdentifier: id}
		tomb := &streams.TombstoneReq_Options{StreamIdentifier: id}
		switch {
		case tt.expected == nil:
			del.ExpectedStreamRevision = &streams.DeleteReq_Options_Any{Any: &shared.Empty{}}
			tomb.ExpectedStreamRevision = &streams.TombstoneReq_Options_Any{Any: &shared.Empty{}}
		case *tt.expected != 99:
			del.ExpectedStreamRevision = &streams.DeleteReq_Options_Revision{Revision: *tt.expected}
			tomb.ExpectedStreamRevision = &streams.TombstoneReq_Options_Revision{Revision: *tt.expected}
		}
		var trailer metadata.MD
		_, err := c.Delete(testContext(t), &streams.DeleteReq{Options: del}, grpc.Trailer(&trailer))
		wantRefusal(t, "delete "+tt.stream, err, trailer, tt.code, tt.trailers)
		_, err = c.Tombstone(testContext(t), &streams.TombstoneReq{Options: tomb}, grpc.Trailer(&trailer))
		wantRefusal(t, "tombstone "+tt.stream, err, trailer, tt.code, tt.trailers)
	}
	call, err := c.Append(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := call.Send(options("buried")); err != nil {
		t.Fatal(err)
	}
	_, err = call.CloseAndRecv()
	wantRefusal(t, "append", err, call.Trailer(), codes.FailedPrecondition, buried)
}

func ptr(v uint64) *uint64 { return &v }

func wantRefusal(t *testing.T, what string, err error, trailer metadata.MD, code codes.Code, want map[string]string) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("%s: got %v, want %v", what, err, code)
	}
	for k, v := range want {
		if got := trailer.Get(k); len(got) != 1 || got[0] != v {
			t.Errorf("%s: trailer %s: got %q, want %q", what, k, got, v)
		}
	}
}
