package aggregate

import (
	"encoding/base64"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
)

// Done is what became of a command.
type Done struct {
	// Messages are the events recorded under the command's request id, in order; none where its effect was there
	// already. A repeat has those of the first time, so a reply made from them alone is the same again.
	Messages []proto.Message
	// Repeat tells that they were recorded before.
	Repeat bool
	// Revision and Position are those of the last of Messages, or of the stream where there are none.
	Revision eventlog.Revision
	Position eventlog.Position
}

// Etag is the etag of the entity as the command left it (AIP-154).
func (d Done) Etag() string { return Etag(d.Revision) }

// Token is a consistency token: a read given it sees what the command did.
func (d Done) Token() string { return Token(d.Position) }

// Etag is the etag of an entity whose stream is at a revision: the revision, quoted.
func Etag(r eventlog.Revision) string {
	return `"` + strconv.FormatInt(int64(r), 10) + `"`
}

const tokenVersion = "1:"

// Token encodes a position of the log as an opaque string.
func Token(p eventlog.Position) string {
	return base64.RawURLEncoding.EncodeToString([]byte(tokenVersion + strconv.FormatUint(uint64(p), 10)))
}

// ParseToken is the inverse of [Token]. The empty token is position 0, which every reader has reached; one that Token
// did not make is a fault on the field consistency_token.
func ParseToken(s string) (eventlog.Position, error) {
	if s == "" {
		return 0, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	digits, ok := strings.CutPrefix(string(b), tokenVersion)
	p, perr := strconv.ParseUint(digits, 10, 64)
	if err != nil || !ok || perr != nil {
		return 0, fault.InvalidField("consistency_token", "is not one that a command's reply gave")
	}
	return eventlog.Position(p), nil
}
