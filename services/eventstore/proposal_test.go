package eventstore

import (
	"bytes"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/purserhq/purser/services/eventstore/storage"
)

// What is decoded by hand is what the generated code would have decoded.
func TestDecodedProposalsAreAppendReqs(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		id := storage.ID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(rt, "id"))
		m := &streams.AppendReq_ProposedMessage{
			Metadata:       rapid.MapOfN(rapid.SampledFrom([]string{keyType, keyContentType, "other"}), rapid.String(), 0, 3).Draw(rt, "metadata"),
			CustomMetadata: rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(rt, "custom"),
			Data:           rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(rt, "data"),
		}
		if rapid.Bool().Draw(rt, "is JSON") {
			m.Metadata[keyContentType] = typeJSON
		}
		switch rapid.SampledFrom([]string{"none", "empty", "string", "structured", "no UUID"}).Draw(rt, "kind of id") {
		case "none":
			id = storage.ID{}
		case "empty":
			m.Id, id = &shared.UUID{}, storage.ID{}
		case "string":
			m.Id = &shared.UUID{Value: &shared.UUID_String_{String_: uuid.UUID(id).String()}}
		case "structured":
			most, least := idBits(id)
			m.Id = &shared.UUID{Value: &shared.UUID_Structured_{Structured: &shared.UUID_Structured{
				MostSignificantBits: int64(most), LeastSignificantBits: int64(least),
			}}}
		case "no UUID":
			m.Id, id = &shared.UUID{Value: &shared.UUID_String_{String_: "no UUID"}}, storage.ID{}
		}
		b, err := proto.Marshal(&streams.AppendReq{Content: &streams.AppendReq_ProposedMessage_{ProposedMessage: m}})
		if err != nil {
			rt.Fatal(err)
		}
		var p proposal
		if err := p.decode(b); err != nil {
			rt.Fatal(err)
		}
		eventType, hasType := m.Metadata[keyType]
		contentType, hasContentType := m.Metadata[keyContentType]
		if p.options != nil || !p.event || p.id != id || p.hasType != hasType || p.eventType != eventType ||
			p.hasContentType != hasContentType || p.json != (contentType == typeJSON) ||
			!bytes.Equal(p.custom, m.CustomMetadata) || !bytes.Equal(p.data, m.Data) {
			rt.Fatalf("%v became %+v", m, p)
		}
	})
}

func TestDecodedOptionsAreAppendReqs(t *testing.T) {
	want := &streams.AppendReq_Options{
		StreamIdentifier:       &shared.StreamIdentifier{StreamName: []byte("s")},
		ExpectedStreamRevision: &streams.AppendReq_Options_Revision{Revision: 7},
	}
	b, err := proto.Marshal(&streams.AppendReq{Content: &streams.AppendReq_Options_{Options: want}})
	if err != nil {
		t.Fatal(err)
	}
	var p proposal
	if err := p.decode(b); err != nil || p.event || !proto.Equal(p.options, want) {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestWhatIsNoTextIsNoProposal(t *testing.T) {
	entry := appendBytes(appendBytes(nil, fieldKey, keyType), fieldValue, "\xff")
	b := appendBytes(nil, fieldProposed, appendBytes(nil, fieldProposedMetadata, entry))
	var p proposal
	if err := p.decode(b); err == nil {
		t.Errorf("decoded to %+v", p)
	}
}

func TestAppendedIsAnAppendResp(t *testing.T) {
	empty := &shared.Empty{}
	for _, c := range []struct {
		written storage.Written
		want    *streams.AppendResp_Success
	}{
		{storage.Written{Revision: 0, Position: 300}, &streams.AppendResp_Success{
			CurrentRevisionOption: &streams.AppendResp_Success_CurrentRevision{},
			PositionOption:        &streams.AppendResp_Success_Position{Position: &streams.AppendResp_Position{CommitPosition: 300, PreparePosition: 300}},
		}},
		{storage.Written{Revision: 700}, &streams.AppendResp_Success{
			CurrentRevisionOption: &streams.AppendResp_Success_CurrentRevision{CurrentRevision: 700},
			PositionOption:        &streams.AppendResp_Success_NoPosition{NoPosition: empty},
		}},
		{storage.Written{Revision: storage.NoRevision}, &streams.AppendResp_Success{
			CurrentRevisionOption: &streams.AppendResp_Success_NoStream{NoStream: empty},
			PositionOption:        &streams.AppendResp_Success_NoPosition{NoPosition: empty},
		}},
	} {
		var got streams.AppendResp
		if err := proto.Unmarshal(appended(c.written), &got); err != nil {
			t.Fatal(err)
		}
		if want := (&streams.AppendResp{Result: &streams.AppendResp_Success_{Success: c.want}}); !proto.Equal(&got, want) {
			t.Errorf("%+v: got %v, want %v", c.written, &got, want)
		}
	}
}
