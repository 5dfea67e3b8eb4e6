package eventstore

import (
	"encoding/binary"
	"strconv"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/purserhq/purser/services/eventstore/storage"
)

// What is encoded by hand decodes to the message that the generated code would have sent.
func TestEncodedEventsAreReadResps(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rec := &storage.Record{
			Position: storage.Position(rapid.Uint64Min(1).Draw(rt, "position")),
			Revision: storage.Revision(rapid.Int64Min(0).Draw(rt, "revision")),
			ID:       storage.ID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(rt, "id")),
			JSON:     rapid.Bool().Draw(rt, "json"),
			Created:  rapid.Int64Min(0).Draw(rt, "created"),
			Stream:   []byte(rapid.StringN(1, 300, -1).Draw(rt, "stream")),
			Type:     []byte(rapid.StringN(1, 300, -1).Draw(rt, "type")),
			Metadata: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(rt, "metadata"),
			Data:     rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(rt, "data"),
		}
		asString := rapid.Bool().Draw(rt, "string id")
		var got streams.ReadResp
		if err := proto.Unmarshal(appendEvent(nil, rec, nil, asString), &got); err != nil {
			rt.Fatal(err)
		}
		if want := readResp(rec, asString); !proto.Equal(want, &got) {
			rt.Fatalf("got %v, want %v", &got, want)
		}
	})
}

func readResp(rec *storage.Record, stringID bool) *streams.ReadResp {
	id := &shared.UUID{Value: &shared.UUID_Structured_{Structured: &shared.UUID_Structured{
		MostSignificantBits:  int64(binary.BigEndian.Uint64(rec.ID[:8])),
		LeastSignificantBits: int64(binary.BigEndian.Uint64(rec.ID[8:])),
	}}}
	if stringID {
		id = &shared.UUID{Value: &shared.UUID_String_{String_: uuid.UUID(rec.ID).String()}}
	}
	contentType := "application/octet-stream"
	if rec.JSON {
		contentType = "application/json"
	}
	return &streams.ReadResp{Content: &streams.ReadResp_Event{Event: &streams.ReadResp_ReadEvent{
		Event: &streams.ReadResp_ReadEvent_RecordedEvent{
			Id:               id,
			StreamIdentifier: &shared.StreamIdentifier{StreamName: rec.Stream},
			StreamRevision:   uint64(rec.Revision),
			PreparePosition:  uint64(rec.Position),
			CommitPosition:   uint64(rec.Position),
			Metadata: map[string]string{
				"type":         string(rec.Type),
				"content-type": contentType,
				"created":      strconv.FormatInt(rec.Created, 10),
			},
			CustomMetadata: rec.Metadata,
			Data:           rec.Data,
		},
		Position: &streams.ReadResp_ReadEvent_CommitPosition{CommitPosition: uint64(rec.Position)},
	}}}
}
