package eventstore

import (
	"strconv"
	"strings"

	"github.com/purserhq/purser/services/eventstore/storage"
)

// typeLink is the type of an event that stands for another, its target: its data is "revision@stream".
const typeLink = "$>"

// parseLink takes the data of a link apart. What doesn't begin with a revision is not a link; one that names no stream has
// no target.
func parseLink(data []byte) (stream string, revision storage.Revision, ok bool) {
	number, stream, _ := strings.Cut(string(data), "@")
	r, err := strconv.ParseInt(number, 10, 64)
	return stream, storage.Revision(r), err == nil && r >= 0
}
