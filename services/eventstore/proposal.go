package eventstore

import (
	"encoding/binary"
	"errors"
	"unicode/utf8"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/services/eventstore/storage"
)

// Field numbers of streams.proto.
const (
	fieldOptions  = 1 // AppendReq
	fieldProposed = 2

	fieldProposedID       = 1 // AppendReq.ProposedMessage
	fieldProposedMetadata = 2
	fieldProposedCustom   = 3
	fieldProposedData     = 4

	fieldSuccess    = 1 // AppendResp
	fieldCurrent    = 1 // AppendResp.Success
	fieldNoStream   = 2
	fieldPosition   = 3
	fieldNoPosition = 4

	fieldCommitPosition  = 1 // AppendResp.Position
	fieldPreparePosition = 2
)

// proposal is an AppendReq: the options of an append or one of its events. Events are decoded straight from the wire, and
// refer to what was received, for the same reason for which they are encoded so (wire.go).
type proposal struct {
	options *streams.AppendReq_Options // nil in an event

	event                   bool
	id                      storage.ID // zero where there is none, or none that can be read
	eventType               string
	hasType, hasContentType bool
	json                    bool
	custom, data            []byte
}

var errNotUTF8 = errors.New("a text is not valid UTF-8")

// decode fills a proposal from its encoding, which it goes on to refer to.
func (p *proposal) decode(b []byte) error {
	return eachField(b, func(f wireField) error {
		switch f.number {
		case fieldOptions:
			*p = proposal{options: &streams.AppendReq_Options{}}
			return proto.Unmarshal(f.bytes, p.options)
		case fieldProposed:
			*p = proposal{event: true}
			return eachField(f.bytes, p.decodeEvent)
		}
		return nil
	})
}

func (p *proposal) decodeEvent(f wireField) error {
	switch f.number {
	case fieldProposedID:
		return p.decodeID(f.bytes)
	case fieldProposedMetadata:
		return p.decodeMetadata(f.bytes)
	case fieldProposedCustom:
		p.custom = f.bytes
	case fieldProposedData:
		p.data = f.bytes
	}
	return nil
}

func (p *proposal) decodeID(b []byte) error {
	p.id = storage.ID{}
	return eachField(b, func(f wireField) error {
		switch f.number {
		case fieldStructured:
			p.id = storage.ID{}
			return eachVarint(f.bytes, func(number protowire.Number, bits uint64) {
				switch number {
				case fieldMostBits:
					binary.BigEndian.PutUint64(p.id[:8], bits)
				case fieldLeastBits:
					binary.BigEndian.PutUint64(p.id[8:], bits)
				}
			})
		case fieldString:
			id, err := uuid.ParseBytes(f.bytes)
			if err != nil {
				id = uuid.Nil
			}
			p.id = storage.ID(id)
		}
		return nil
	})
}

// decodeMetadata takes an entry of the map that says what kind of event it is.
func (p *proposal) decodeMetadata(entry []byte) error {
	var key, value []byte
	err := eachField(entry, func(f wireField) error {
		switch f.number {
		case fieldKey:
			key = f.bytes
		case fieldValue:
			value = f.bytes
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case !utf8.Valid(key), !utf8.Valid(value):
		return errNotUTF8
	case string(key) == keyType:
		p.hasType, p.eventType = true, string(value)
	case string(key) == keyContentType:
		p.hasContentType, p.json = true, string(value) == typeJSON
	}
	return nil
}

// wireField is a field that holds bytes.
type wireField struct {
	number protowire.Number
	bytes  []byte
}

// eachField visits the fields of a message that hold bytes; others are unknown to who asks for bytes.
func eachField(b []byte, visit func(wireField) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := visit(wireField{number, value}); err != nil {
			return err
		}
	}
	return nil
}

// eachVarint visits the fields of a message that hold numbers.
func eachVarint(b []byte, visit func(protowire.Number, uint64)) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if kind == protowire.VarintType {
			value, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return protowire.ParseError(n)
			}
			visit(number, value)
		}
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
	}
	return nil
}

// appended is an encoded AppendResp that says where the last event was written.
func appended(w storage.Written) frame {
	var position []byte
	if w.Position != 0 {
		position = appendUint(appendUint(nil, fieldCommitPosition, uint64(w.Position)), fieldPreparePosition, uint64(w.Position))
	}
	var success []byte
	if w.Revision != storage.NoRevision {
		success = appendUint(success, fieldCurrent, uint64(w.Revision))
	} else {
		success = appendLength(success, fieldNoStream, 0)
	}
	if position != nil {
		success = appendBytes(success, fieldPosition, position)
	} else {
		success = appendLength(success, fieldNoPosition, 0)
	}
	return appendBytes(nil, fieldSuccess, success)
}
