package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The keys. A stream's name is UTF-8, in which the byte 0xff does not occur, so it ends the name and no stream's keys lie
// between another's.
//
//	e <position>                  an event
//	h <stream>                    head: the last revision and its position
//	s <stream> 0xff <revision>    the position of that event
//	v                             the format version
//	w <time> <stream>             the scavenger is to look at the stream then
const (
	eventPrefix = 'e'
	headPrefix  = 'h'
	indexPrefix = 's'
	workPrefix  = 'w'
	nameEnd     = 0xff
)

var (
	formatKey = []byte{'v'}
	eventEnd  = []byte{eventPrefix + 1}
	workStart = []byte{workPrefix}
	workEnd   = []byte{workPrefix + 1}
)

func eventKey(p Position) []byte {
	return binary.BigEndian.AppendUint64([]byte{eventPrefix}, uint64(p))
}

func eventPosition(key []byte) Position { return Position(binary.BigEndian.Uint64(key[1:])) }

func headKey(stream string) []byte {
	return append(append(make([]byte, 0, 1+len(stream)), headPrefix), stream...)
}

func indexKey(stream string, r Revision) []byte {
	k := append(make([]byte, 0, len(stream)+10), indexPrefix)
	k = append(append(k, stream...), nameEnd)
	return binary.BigEndian.AppendUint64(k, uint64(r))
}

func indexRevision(key []byte) Revision {
	return Revision(binary.BigEndian.Uint64(key[len(key)-8:]))
}

// keyPrefixes are the first bytes of all keys; Verify reports any other.
var keyPrefixes = []byte{eventPrefix, headPrefix, indexPrefix, workPrefix, formatKey[0]}

// workKey has a time in ticks since the Unix epoch; zero is at once.
func workKey(due int64, stream string) []byte {
	k := append(make([]byte, 0, 9+len(stream)), workPrefix)
	return append(binary.BigEndian.AppendUint64(k, uint64(due)), stream...)
}

func parseWorkKey(key []byte) (due int64, stream string) {
	return int64(binary.BigEndian.Uint64(key[1:])), string(key[9:])
}

func appendPosition(b []byte, p Position) []byte { return binary.AppendUvarint(b, uint64(p)) }

func parsePosition(b []byte) (Position, error) {
	d := decoder{rest: b}
	p := Position(d.uvarint())
	return p, d.err
}

// head is the state of a stream that an append is decided on.
type head struct {
	revision Revision
	position Position
}

var noHead = head{revision: NoRevision}

// tombstone reports whether the last event deleted the stream for good.
func (h head) tombstone() bool { return h.revision == deletedRevision }

func (h head) written() Written { return Written{Revision: h.revision, Position: h.position} }

func (h head) append(b []byte) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(h.revision)), uint64(h.position))
}

func parseHead(b []byte) (head, error) {
	d := decoder{rest: b}
	h := head{revision: Revision(d.uvarint()), position: Position(d.uvarint())}
	return h, d.err
}

const flagJSON = 1

// appendRecord encodes all of a record but its position, which is its key. What a filter looks at comes first.
func appendRecord(b []byte, stream string, r Revision, created int64, e *Proposed) []byte {
	var flags byte
	if e.JSON {
		flags |= flagJSON
	}
	b = append(b, flags)
	b = append(binary.AppendUvarint(b, uint64(len(stream))), stream...)
	b = append(binary.AppendUvarint(b, uint64(len(e.Type))), e.Type...)
	b = binary.AppendUvarint(b, uint64(r))
	b = binary.BigEndian.AppendUint64(b, uint64(created))
	b = append(b, e.ID[:]...)
	b = append(binary.AppendUvarint(b, uint64(len(e.Metadata))), e.Metadata...)
	return append(b, e.Data...)
}

// parse fills a record from its encoding, which it goes on to refer to.
func (rec *Record) parse(p Position, b []byte) error {
	d := decoder{rest: b}
	flags := d.bytes(1)
	rec.Position = p
	rec.Stream = d.bytes(d.uvarint())
	rec.Type = d.bytes(d.uvarint())
	rec.Revision = Revision(d.uvarint())
	created := d.bytes(8)
	id := d.bytes(uint64(len(rec.ID)))
	rec.Metadata = d.bytes(d.uvarint())
	rec.Data = d.rest
	if d.err != nil {
		return fmt.Errorf("event at position %d: %w", p, d.err)
	}
	rec.JSON = flags[0]&flagJSON != 0
	rec.Created = int64(binary.BigEndian.Uint64(created))
	copy(rec.ID[:], id)
	return nil
}

var errDamaged = errors.New("the stored record is damaged")

// decoder takes values off the front of a slice and remembers the first failure.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.rest, d.err = nil, errDamaged
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.rest, d.err = nil, errDamaged
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}
