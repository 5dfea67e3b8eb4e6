package aggregate

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"encoding/binary"
	"encoding/hex"
	"math"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/purserhq/purser/internal/secret"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// hashVersion is raised when the canonical encoding changes; hashes of other versions are not compared.
const hashVersion = "1"

const hashPurpose = "request-hash"

// usualSize holds the encoding of most commands, in bytes.
const usualSize = 512

// hasher makes and compares request hashes, "<version>.<key id>.<hex HMAC of which command it is and of its canonical
// encoding>". They are keyed because a request holds personal data, which must not be open to guessing from a stored hash.
type hasher struct {
	secret *secret.Secret
	fields sync.Map // what hashedFields found, by descriptor: there are as many as types of messages
}

func (h *hasher) hash(cmd Command) string {
	return h.under(h.secret.Current(), cmd)
}

func (h *hasher) under(keyID string, cmd Command) string {
	m := cmd.ProtoReflect()
	b := append(make([]byte, 0, usualSize), m.Descriptor().FullName()...) // commands of different kinds may have the same fields
	mac := h.secret.MAC(keyID, hashPurpose, h.appendMessage(append(b, 0), m))
	return strings.Join([]string{hashVersion, keyID, hex.EncodeToString(mac)}, ".")
}

// matches tells whether a command asks for what was recorded. A hash that can't be made again (another version of the
// encoding, a key since removed) matches everything.
func (h *hasher) matches(cmd Command, recorded string) bool {
	version, rest, _ := strings.Cut(recorded, ".")
	keyID, _, _ := strings.Cut(rest, ".")
	if version != hashVersion || h.secret.MAC(keyID, hashPurpose, nil) == nil {
		return true
	}
	return hmac.Equal([]byte(h.under(keyID, cmd)), []byte(recorded))
}

// hashed leaves out what does not change what a command asks for.
func hashed(fd protoreflect.FieldDescriptor) bool {
	switch fd.Name() {
	case "request_id", "etag":
		return false
	}
	return !proto.GetExtension(fd.Options(), typev1.E_NotHashed).(bool)
}

// appendMessage encodes a message the same way in every build: the fields that are set, by number, each as number, length
// and value. A field added to a message changes no encoding in which it is not set. Neither protobuf's own encoding nor its
// JSON promises that.
func (h *hasher) appendMessage(b []byte, m protoreflect.Message) []byte {
	for _, fd := range h.hashedFields(m.Descriptor()) {
		if m.Has(fd) {
			b = binary.AppendUvarint(b, uint64(fd.Number()))
			start := len(b)
			b = withLength(h.appendField(b, fd, m.Get(fd)), start)
		}
	}
	return b
}

// hashedFields are the fields of a message that are hashed, by number.
func (h *hasher) hashedFields(d protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	if known, ok := h.fields.Load(d); ok {
		return known.([]protoreflect.FieldDescriptor)
	}
	var fields []protoreflect.FieldDescriptor
	for i := range d.Fields().Len() {
		if fd := d.Fields().Get(i); hashed(fd) {
			fields = append(fields, fd)
		}
	}
	slices.SortFunc(fields, func(x, y protoreflect.FieldDescriptor) int { return cmp.Compare(x.Number(), y.Number()) })
	h.fields.Store(d, fields)
	return fields
}

func (h *hasher) appendField(b []byte, fd protoreflect.FieldDescriptor, v protoreflect.Value) []byte {
	switch {
	case fd.IsMap():
		var entries [][]byte
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			e := withLength(h.appendValue(nil, fd.MapKey(), k.Value()), 0)
			start := len(e)
			entries = append(entries, withLength(h.appendValue(e, fd.MapValue(), v), start))
			return true
		})
		slices.SortFunc(entries, bytes.Compare)
		return append(b, bytes.Join(entries, nil)...)
	case fd.IsList():
		for i := range v.List().Len() {
			start := len(b)
			b = withLength(h.appendValue(b, fd, v.List().Get(i)), start)
		}
		return b
	default:
		return h.appendValue(b, fd, v)
	}
}

func (h *hasher) appendValue(b []byte, fd protoreflect.FieldDescriptor, v protoreflect.Value) []byte {
	switch fd.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return h.appendMessage(b, v.Message())
	case protoreflect.StringKind:
		return append(b, v.String()...)
	case protoreflect.BytesKind:
		return append(b, v.Bytes()...)
	case protoreflect.BoolKind:
		if v.Bool() {
			return append(b, 1)
		}
		return append(b, 0)
	case protoreflect.EnumKind:
		return binary.AppendVarint(b, int64(v.Enum()))
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return binary.BigEndian.AppendUint64(b, math.Float64bits(v.Float()))
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		return binary.AppendUvarint(b, v.Uint())
	default:
		return binary.AppendVarint(b, v.Int())
	}
}

// withLength puts the length of what begins at start before it.
func withLength(b []byte, start int) []byte {
	var length [binary.MaxVarintLen64]byte
	return slices.Insert(b, start, binary.AppendUvarint(length[:0], uint64(len(b)-start))...)
}
