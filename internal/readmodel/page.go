package readmodel

import (
	"bytes"
	"crypto/hmac"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/purserhq/purser/internal/fault"
)

const (
	defaultPageSize = 50
	maxPageSize     = 1000

	tokenPurpose = "page-token"
)

// Page asks for one page of a list (AIP-158): of which rows, and in which order. All but Size must be the same for the
// page that follows.
type Page struct {
	// Filter is by AIP-160; empty for all rows.
	Filter string
	// OrderBy is by AIP-132; empty for the list's own order.
	OrderBy string
	// Search is words to look for, in a list that can be searched; the last may be the beginning of one.
	Search string
	// Size is the most rows to return; 0 is 50, and more than 1000 is 1000.
	Size int32
	// Token is what the page before came with; empty for the first.
	Token string
}

func (p Page) limit() (int, error) {
	switch {
	case p.Size < 0:
		return 0, fault.InvalidField("page_size", "must not be negative")
	case p.Size == 0:
		return defaultPageSize, nil
	}
	return int(min(p.Size, maxPageSize)), nil
}

// listing names a query with all that its pages must agree on, such as its filter.
type listing []string

// begin returns the page's limit, and sets the cursor to where the page starts; on the first page it leaves it alone.
func (q *Queries) begin(list listing, p Page, cursor any) (limit int, err error) {
	if limit, err = p.limit(); err != nil {
		return 0, err
	}
	if p.Token == "" {
		return limit, nil
	}
	if !q.openToken(list, p.Token, cursor) {
		return 0, fault.InvalidField("page_token", "is not one that the page before came with, or the query is not the same")
	}
	return limit, nil
}

// endPage cuts rows, of which one more than the limit was asked for, and returns the token of the page that follows.
func endPage[R any](q *Queries, list listing, rows []R, limit int, cursor func(R) any) ([]R, string, error) {
	if len(rows) <= limit {
		return rows, "", nil
	}
	token, err := q.sealToken(list, cursor(rows[limit-1]))
	return rows[:limit], token, err
}

// sealToken makes a page token: "<key id>.<cursor>.<MAC>" in base64, the MAC being over the listing and the cursor.
func (q *Queries) sealToken(list listing, cursor any) (string, error) {
	body, err := json.Marshal(cursor)
	if err != nil {
		return "", fmt.Errorf("make a page token: %w", err)
	}
	key := q.secret.Current()
	return encode([]byte(key)) + "." + encode(body) + "." + encode(q.pageMAC(key, list, body)), nil
}

// openToken tells whether the token was made by sealToken for the same listing, and if so reads the cursor.
func (q *Queries) openToken(list listing, token string, cursor any) bool {
	texts := strings.Split(token, ".")
	if len(texts) != 3 {
		return false
	}
	var parts [3][]byte
	for i, s := range texts {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil || encode(b) != s { // no two texts are the same token
			return false
		}
		parts[i] = b
	}
	mac := q.pageMAC(string(parts[0]), list, parts[1])
	if mac == nil || !hmac.Equal(mac, parts[2]) {
		return false
	}
	// A cursor of an older build may have another shape.
	d := json.NewDecoder(bytes.NewReader(parts[1]))
	d.DisallowUnknownFields()
	return d.Decode(cursor) == nil
}

// pageMAC is nil where the key is not known.
func (q *Queries) pageMAC(key string, list listing, cursor []byte) []byte {
	data, err := json.Marshal(struct {
		List   listing
		Cursor []byte
	}{list, cursor})
	if err != nil {
		return nil
	}
	return q.secret.MAC(key, tokenPurpose, data)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
