package eventstore

import (
	"encoding/binary"
	"strconv"

	"github.com/google/uuid"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that ours falls back to
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/purserhq/purser/services/eventstore/storage"
)

// Events are encoded straight from the stored record. The generated messages would cost a dozen allocations per event,
// among them a map, which on the server is most of what reading costs.

// frame is an encoded answer: a ReadResp or an AppendResp.
type frame []byte

// codec is gRPC's own, which also takes frames and fills proposals.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(frame); ok {
		return mem.BufferSlice{mem.SliceBuffer(f)}, nil
	}
	return c.CodecV2.Marshal(v)
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if p, ok := v.(*proposal); ok {
		return p.decode(data.Materialize()) // a copy: what was received goes back to gRPC
	}
	return c.CodecV2.Unmarshal(data, v)
}

// Field numbers of streams.proto and shared.proto.
const (
	fieldEvent = 1 // ReadResp.event, and ReadResp.ReadEvent.event

	fieldReadEventLink   = 2
	fieldReadEventCommit = 3

	fieldID       = 1 // ReadResp.ReadEvent.RecordedEvent
	fieldStream   = 2
	fieldRevision = 3
	fieldPrepare  = 4
	fieldCommit   = 5
	fieldMetadata = 6
	fieldCustom   = 7
	fieldData     = 8

	fieldStructured = 1 // UUID
	fieldString     = 2
	fieldMostBits   = 1
	fieldLeastBits  = 2

	fieldName = 3 // StreamIdentifier

	fieldKey   = 1 // map entry
	fieldValue = 2
)

// appendEvent adds an event as an encoded ReadResp, with the link that led to it, if any. The event is nil if the link
// leads nowhere.
func appendEvent(b []byte, event, link *storage.Record, stringID bool) []byte {
	original := link
	if link == nil {
		original = event
	}
	position := uint64(original.Position)
	eventSize, linkSize := recordedSize(event, stringID), recordedSize(link, stringID)
	size := 1 + protowire.SizeVarint(position)
	for _, n := range []int{eventSize, linkSize} {
		if n > 0 {
			size += field(n)
		}
	}
	b = appendLength(b, fieldEvent, size)
	if event != nil {
		b = appendRecorded(appendLength(b, fieldEvent, eventSize), event, stringID)
	}
	if link != nil {
		b = appendRecorded(appendLength(b, fieldReadEventLink, linkSize), link, stringID)
	}
	return appendUint(b, fieldReadEventCommit, position)
}

// recordedSize is the length of what appendRecorded adds; 0 for no event.
func recordedSize(rec *storage.Record, stringID bool) int {
	if rec == nil {
		return 0
	}
	position := protowire.SizeVarint(uint64(rec.Position))
	return field(idSize(rec.ID, stringID)) +
		field(field(len(rec.Stream))) +
		1 + protowire.SizeVarint(uint64(rec.Revision)) +
		1 + position + 1 + position +
		field(entrySize(keyType, len(rec.Type))) +
		field(entrySize(keyContentType, len(contentType(rec)))) +
		field(entrySize(keyCreated, decimals(rec.Created))) +
		field(len(rec.Metadata)) +
		field(len(rec.Data))
}

func appendRecorded(b []byte, rec *storage.Record, stringID bool) []byte {
	b = appendLength(b, fieldID, idSize(rec.ID, stringID))
	b = appendID(b, rec.ID, stringID)
	b = appendLength(b, fieldStream, field(len(rec.Stream)))
	b = appendBytes(b, fieldName, rec.Stream)
	b = appendUint(b, fieldRevision, uint64(rec.Revision))
	b = appendUint(b, fieldPrepare, uint64(rec.Position))
	b = appendUint(b, fieldCommit, uint64(rec.Position))
	b = appendEntry(b, keyType, rec.Type)
	b = appendEntry(b, keyContentType, contentType(rec))
	b = appendEntry(b, keyCreated, strconv.AppendInt(make([]byte, 0, 20), rec.Created, 10))
	b = appendBytes(b, fieldCustom, rec.Metadata)
	return appendBytes(b, fieldData, rec.Data)
}

func contentType(rec *storage.Record) string {
	if rec.JSON {
		return typeJSON
	}
	return typeBinary
}

func idBits(id storage.ID) (most, least uint64) {
	return binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
}

func idSize(id storage.ID, asString bool) int {
	if asString {
		return field(len(uuid.UUID{}.String()))
	}
	most, least := idBits(id)
	return field(1 + protowire.SizeVarint(most) + 1 + protowire.SizeVarint(least))
}

func appendID(b []byte, id storage.ID, asString bool) []byte {
	if asString {
		return appendBytes(b, fieldString, uuid.UUID(id).String())
	}
	most, least := idBits(id)
	b = appendLength(b, fieldStructured, 1+protowire.SizeVarint(most)+1+protowire.SizeVarint(least))
	return appendUint(appendUint(b, fieldMostBits, most), fieldLeastBits, least)
}

func entrySize(key string, value int) int { return field(len(key)) + field(value) }

func appendEntry[V string | []byte](b []byte, key string, value V) []byte {
	b = appendLength(b, fieldMetadata, entrySize(key, len(value)))
	return appendBytes(appendBytes(b, fieldKey, key), fieldValue, value)
}

// field is the size of a field of so many bytes; all the field numbers above fit a tag of one byte.
func field(n int) int { return 1 + protowire.SizeBytes(n) }

func appendLength(b []byte, num protowire.Number, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.BytesType), uint64(n))
}

func appendBytes[V string | []byte](b []byte, num protowire.Number, v V) []byte {
	return append(appendLength(b, num, len(v)), v...)
}

func appendUint(b []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

// decimals is the length of a number's decimal form.
func decimals(v int64) int { return len(strconv.AppendInt(make([]byte, 0, 20), v, 10)) }
