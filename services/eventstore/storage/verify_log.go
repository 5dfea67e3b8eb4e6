package storage

import (
	"bytes"
	"errors"
	"math"

	"github.com/cockroachdb/pebble/v2"
)

const (
	progressEvery = 1 << 12 // keys

	// tombstoneRevision is the last revision of a stream that was deleted for good.
	tombstoneRevision Revision = math.MaxInt64
)

// scanner checks what the keys of an open store say about one another. It goes through the log and then through the
// indexes, each in the order of its keys, and remembers no more than where it is.
type scanner struct {
	view
	report   *Report
	progress func(done float64)
	indexed  int // entries in the indexes of all streams

	headKnown bool // the report's head is the last event, and not only the last one that could be read
	blind     bool // a damaged table is in the way of looking keys up
}

// errUnread says that a key can't be looked up, and that the report says why.
var errUnread = errors.New("unread")

// lookUp gets a key, until it comes upon a damaged table: that costs Pebble long, because it searches for the bit that has
// changed, and a scan looks up every event.
func (s *scanner) lookUp(key []byte, use func(value []byte) error) error {
	if s.blind {
		return errUnread
	}
	err := s.get(key, use)
	var file *fileError
	if errors.As(err, &file) {
		s.blind = true
		s.report.unread(err)
		return errUnread
	}
	return err
}

func (s *scanner) checkVersion() error {
	err := s.checkFormat()
	if errors.Is(err, pebble.ErrNotFound) {
		err = errors.New("it does not say which format it has")
	}
	return err
}

// checkPrefixes looks for keys of a kind that this program doesn't know.
func (s *scanner) checkPrefixes() error {
	it, err := s.NewIter(nil)
	if err != nil {
		return err
	}
	for ok := it.First(); ok; {
		kind := it.Key()[0]
		if !bytes.Contains(keyPrefixes, []byte{kind}) {
			s.report.find("there are keys of the unknown kind %q", kind)
		}
		if kind == math.MaxUint8 {
			break
		}
		ok = it.SeekGE([]byte{kind + 1})
	}
	return readError(it.Close()) // an error of the iteration is among those of Close
}

// checkEvents goes through the log and looks each event up in the index of its stream.
func (s *scanner) checkEvents() error {
	head, err := lastPosition(s.Reader)
	s.headKnown = err == nil
	if err != nil && !errors.Is(err, errDamaged) {
		s.report.unread(err)
	}
	var rec Record
	err = s.scan([]byte{eventPrefix}, eventEnd, Forwards, func(key, value []byte) (bool, error) {
		if len(key) != len(eventKey(0)) || eventPosition(key) == 0 {
			s.report.find("the key %x is no position", key)
			return true, nil
		}
		p := eventPosition(key)
		s.report.Head = p
		s.report.Events++
		s.report.Bytes += int64(len(value))
		if s.report.Events%progressEvery == 0 {
			s.progress(min(1, float64(p)/float64(head+1)) / 2)
		}
		if err := rec.parse(p, value); err != nil {
			s.report.find("%v", err)
			return true, nil
		}
		return true, s.checkIndexed(&rec)
	})
	if err == nil {
		s.headKnown = true
	} else if s.headKnown {
		s.report.Head = head
	}
	return err
}

func (s *scanner) checkIndexed(rec *Record) error {
	var indexed Position
	err := s.lookUp(indexKey(string(rec.Stream), rec.Revision), func(value []byte) (err error) {
		indexed, err = parsePosition(value)
		return err
	})
	switch {
	case errors.Is(err, errUnread):
	case errors.Is(err, pebble.ErrNotFound):
		s.report.find("the event at position %d, revision %d of stream %q, is not in the stream's index",
			rec.Position, rec.Revision, rec.Stream)
	case errors.Is(err, errDamaged):
		s.report.find("the index of stream %q is damaged at revision %d", rec.Stream, rec.Revision)
	case err != nil:
		return err
	case indexed != rec.Position:
		s.report.find("revision %d of stream %q is the event at position %d, but the stream's index says position %d",
			rec.Revision, rec.Stream, rec.Position, indexed)
	}
	return nil
}

// walk is where checkStreams is.
type walk struct {
	stream []byte
	last   head
}

// checkStreams goes through the indexes of all streams: their revisions have no gap and end at their heads.
func (s *scanner) checkStreams() error {
	var at *walk
	err := s.scanIndexes(func(stream []byte, h head) error {
		if at == nil || !bytes.Equal(at.stream, stream) {
			if err := s.finish(at); err != nil {
				return err
			}
			at = &walk{stream: bytes.Clone(stream), last: h}
			s.report.Streams++
			return nil
		}
		if h.revision != at.last.revision+1 && h.revision != tombstoneRevision {
			s.report.find("stream %q goes on from revision %d to %d", stream, at.last.revision, h.revision)
		}
		at.last = h
		return nil
	})
	if err != nil {
		return err // where the stream ends is not known
	}
	if err := s.finish(at); err != nil {
		return err
	}
	if s.indexed == s.report.Events && s.report.Sound() {
		return nil // every event has its entry in an index, so every entry has its event
	}
	return s.checkDangling()
}

// scanIndexes calls visit for the entries of all streams' indexes that can be read.
func (s *scanner) scanIndexes(visit func(stream []byte, h head) error) error {
	s.indexed = 0
	return s.scan([]byte{indexPrefix}, []byte{indexPrefix + 1}, Forwards, func(key, value []byte) (bool, error) {
		s.indexed++
		if s.indexed%progressEvery == 0 {
			s.progress((1 + min(1, float64(s.indexed)/float64(s.report.Events+1))) / 2)
		}
		name := len(key) - 1 - 8
		if name < 1 || key[name] != nameEnd {
			s.report.find("the key %x is no revision of a stream", key)
			return true, nil
		}
		h := head{revision: indexRevision(key)}
		var err error
		if h.position, err = parsePosition(value); err != nil || h.revision < 0 {
			s.report.find("the index of stream %q is damaged at revision %d", key[1:name], h.revision)
			return true, nil
		}
		return true, visit(key[1:name], h)
	})
}

// finish compares the end of a stream's index with its head.
func (s *scanner) finish(at *walk) error {
	if at == nil {
		return nil
	}
	var h head
	err := s.lookUp(headKey(string(at.stream)), func(value []byte) (err error) {
		h, err = parseHead(value)
		return err
	})
	switch {
	case errors.Is(err, errUnread):
	case errors.Is(err, pebble.ErrNotFound):
		s.report.find("stream %q has events up to revision %d, but no head", at.stream, at.last.revision)
	case errors.Is(err, errDamaged):
		s.report.find("the head of stream %q is damaged", at.stream)
	case err != nil:
		return err
	case h.written() != at.last.written():
		s.report.find("stream %q ends at revision %d, position %d, but its head says revision %d, position %d",
			at.stream, at.last.revision, at.last.position, h.revision, h.position)
	}
	return nil
}

// checkDangling looks for entries of an index that point at no event.
func (s *scanner) checkDangling() error {
	return s.scanIndexes(func(stream []byte, h head) error {
		err := s.lookUp(eventKey(h.position), func([]byte) error { return nil })
		if errors.Is(err, pebble.ErrNotFound) {
			s.report.find("the index of stream %q says that revision %d is at position %d, where there is no event",
				stream, h.revision, h.position)
			return nil
		}
		return err // the rest can't be looked up either
	})
}

// checkHeads goes through the heads: the last event of a stream is never scavenged, so each is in the stream's index.
func (s *scanner) checkHeads() error {
	return s.scan([]byte{headPrefix}, []byte{headPrefix + 1}, Forwards, func(key, value []byte) (bool, error) {
		stream := key[1:]
		h, err := parseHead(value)
		if err != nil {
			s.report.find("the head of stream %q is damaged", stream)
			return true, nil
		}
		err = s.lookUp(indexKey(string(stream), h.revision), func([]byte) error { return nil })
		if errors.Is(err, pebble.ErrNotFound) {
			s.report.find("the head of stream %q says revision %d, which is not in the stream's index", stream, h.revision)
			return true, nil
		}
		return true, err // the rest can't be looked up either
	})
}
