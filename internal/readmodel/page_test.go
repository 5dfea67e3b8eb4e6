package readmodel

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/secret"
)

// secretOf makes a secret of keys, each by its id; the key's bytes are made from the id.
func secretOf(t *testing.T, ids ...string) *secret.Secret {
	t.Helper()
	var lines string
	for _, id := range ids {
		lines += id + " " + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(id, 32))) + "\n"
	}
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := secret.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPageSize(t *testing.T) {
	for size, want := range map[int32]int{0: 50, 1: 1, 1000: 1000, 1001: 1000, 1 << 30: 1000} {
		got, err := Page{Size: size}.limit()
		if err != nil || got != want {
			t.Errorf("%d: got %d, %v, want %d", size, got, err, want)
		}
	}
	if _, err := (Page{Size: -1}).limit(); fault.Of(err).Fields[0].Path != "page_size" {
		t.Errorf("got %v", err)
	}
}

func TestPageToken(t *testing.T) {
	q := &Queries{secret: secretOf(t, "a")}
	type place struct {
		CreateTime time.Time
		OrderID    string
	}
	want := place{time.Date(2026, 1, 31, 12, 0, 0, 123456000, time.UTC), "7"}
	token, err := q.sealToken(listing{"orders", "state = PLACED"}, want)
	if err != nil {
		t.Fatal(err)
	}
	var cursor place
	limit, err := q.begin(listing{"orders", "state = PLACED"}, Page{Size: 5, Token: token}, &cursor)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, limit, 5)
	equal(t, cursor, want)

	t.Run("of a key that was rotated", func(t *testing.T) {
		rotated := &Queries{secret: secretOf(t, "b", "a")}
		if _, err := rotated.begin(listing{"orders", "state = PLACED"}, Page{Token: token}, &cursor); err != nil {
			t.Error(err)
		}
	})
	t.Run("of a key that is gone", func(t *testing.T) {
		other := &Queries{secret: secretOf(t, "b")}
		_, err := other.begin(listing{"orders", "state = PLACED"}, Page{Token: token}, &cursor)
		refusesToken(t, err)
	})
	for _, other := range []listing{{"orders", ""}, {"orders", "state = PLACED "}, {"products"}, {"orders"}, {"orders", "state = PLACED", ""}, {"ordersstate = PLACED"}} {
		t.Run("of another query", func(t *testing.T) {
			_, err := q.begin(other, Page{Token: token}, &cursor)
			refusesToken(t, err)
		})
	}
	for _, changed := range tampered(token) {
		_, err := q.begin(listing{"orders", "state = PLACED"}, Page{Token: changed}, &cursor)
		if err == nil {
			t.Errorf("accepted %q for %q", changed, token)
		}
	}
	equal(t, cursor, want)
}

// A token of another version may have another cursor.
func TestPageTokenOfAnotherShape(t *testing.T) {
	q := &Queries{secret: secretOf(t, "a")}
	token, err := q.sealToken(listing{"orders"}, map[string]string{"Name": "x"})
	if err != nil {
		t.Fatal(err)
	}
	var cursor []string
	_, err = q.begin(listing{"orders"}, Page{Token: token}, &cursor)
	refusesToken(t, err)
}

func refusesToken(t *testing.T, err error) {
	t.Helper()
	f := fault.Of(err)
	if f == nil || f.Kind != fault.Invalid || len(f.Fields) != 1 || f.Fields[0].Path != "page_token" {
		t.Errorf("got %v, want a fault on page_token", err)
	}
}

// tampered returns the token with each character changed or dropped, cut off anywhere, and with some more.
func tampered(token string) []string {
	out := []string{"x", "..", token + "A", token + ".", token + "\n", "." + token}
	for i := range token {
		c := byte('A')
		if token[i] == c {
			c = 'B'
		}
		out = append(out, token[:i]+string(c)+token[i+1:], token[:i]+token[i+1:])
		if i > 0 { // no token at all asks for the first page
			out = append(out, token[:i])
		}
	}
	return out
}
