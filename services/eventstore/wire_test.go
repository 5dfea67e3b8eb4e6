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
		event, link := drawRecord(rt, "event"), drawRecord(rt, "link")
		switch rapid.SampledFrom([]string{"no link", "link", "link without target"}).Draw(rt, "kind") {
		case "no link":
			link = nil
		case "link without target":
			event = nil
		}
		asString := rapid.Bool().Draw(rt, "string id")
		var got streams.ReadResp
		if err := proto.Unmarshal(appendEvent(nil, event, link, asString), &got); err != nil {
			rt.Fatal(err)
		}
		if want := readResp(event, link, asString); !proto.Equal(want, &got) {
			rt.Fatalf("got %v, want %v", &got, want)
		}
	})
}

func drawRecord(rt *rapid.T, of string) *storage.Record {
	return &storage.Record{
		Position: storage.Position(rapid.Uint64Min(1).Draw(rt, of+" position")),
		Revision: storage.Revision(rapid.Int64Min(0).Draw(rt, of+" revision")),
		ID:       storage.ID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(rt, of+" id")),
		JSON:     rapid.Bool().Draw(rt, of+" json"),
		Created:  rapid.Int64Min(0).Draw(rt, of+" created"),
		Stream:   []byte(rapid.StringN(1, 300, -1).Draw(rt, of+" stream")),
		Type:     []byte(rapid.StringN(1, 300, -1).Draw(rt, of+" type")),
		Metadata: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(rt, of+" metadata"),
		Data:     rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(rt, of+" data"),
	}
}

func readResp(event, link *storage.Record, stringID bool) *streams.ReadResp {
	original := link
	if link == nil {
		original = event
	}
	return &streams.ReadResp{Content: &streams.ReadResp_Event{Event: &streams.ReadResp_ReadEvent{
		Event:    recorded(event, stringID),
		Link:     recorded(link, stringID),
		Position: &streams.ReadResp_ReadEvent_CommitPosition{CommitPosition: uint64(original.Position)},
	}}}
}

func recorded(rec *storage.Record, stringID bool) *streams.ReadResp_ReadEvent_RecordedEvent {
	if rec == nil {
		return nil
	}
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
	return &streams.ReadResp_ReadEvent_RecordedEvent{
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
	}
}
