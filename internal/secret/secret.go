// Package secret holds the deployment's secret, under which request hashes, order numbers and page tokens are made.
//
// The file has one line per key, "<key id> <base64 of at least 32 bytes>". The first key makes new hashes; the others
// still verify old ones, so that a key can be rotated. An id never stands for two keys: hashes made under a key that is
// gone must not be compared with those of another, so that of a generated key is made from the key.
package secret

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

const minKeyBytes = 32

// Secret is the keys of one deployment. It is immutable.
type Secret struct {
	keys []key
}

type key struct {
	id   string
	macs *sync.Pool // of hash.Hash: to make one takes longer than to use it
}

func newKey(id string, b []byte) key {
	return key{id: id, macs: &sync.Pool{New: func() any { return hmac.New(sha256.New, b) }}}
}

// Load reads a secret file.
func Load(file string) (*Secret, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the secret file: %w", err)
	}
	s, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("secret file %s: %w", file, err)
	}
	return s, nil
}

// LoadOrCreate reads a secret file, and makes one with a random key where there is none.
func LoadOrCreate(file string) (*Secret, error) {
	s, err := Load(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if err := writeOnce(file, NewKey()); err != nil {
		return nil, fmt.Errorf("write the secret file: %w", err)
	}
	return Load(file)
}

// NewKey is the line of a new random key.
func NewKey() string {
	b := make([]byte, minKeyBytes)
	_, _ = rand.Read(b) // never fails
	return keyID(b) + " " + base64.StdEncoding.EncodeToString(b) + "\n"
}

// keyID names a key without giving it away.
func keyID(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:4])
}

// writeOnce makes the file appear whole or not at all, and for good, and keeps one that came first.
func writeOnce(file, content string) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".secret-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.WriteString(content); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := errors.Join(tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), file); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func parse(data []byte) (*Secret, error) {
	var s Secret
	for sc := bufio.NewScanner(bytes.NewReader(data)); sc.Scan(); {
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		id, enc, ok := strings.Cut(line, " ")
		b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(enc))
		if !ok || err != nil || strings.ContainsAny(id, ".:") {
			return nil, errors.New(`each line must be "<key id> <base64>"`)
		}
		if len(b) < minKeyBytes {
			return nil, fmt.Errorf("key %s has fewer than %d bytes", id, minKeyBytes)
		}
		if slices.ContainsFunc(s.keys, func(k key) bool { return k.id == id }) {
			return nil, fmt.Errorf("two keys have the id %s", id)
		}
		s.keys = append(s.keys, newKey(id, b))
	}
	if len(s.keys) == 0 {
		return nil, errors.New("no key in it")
	}
	return &s, nil
}

// Current is the id of the key that makes new hashes.
func (s *Secret) Current() string { return s.keys[0].id }

// MAC is the HMAC-SHA-256 of data under the key, or nil where the key is not known. The purpose keeps hashes made for
// different uses apart.
func (s *Secret) MAC(keyID, purpose string, data []byte) []byte {
	for _, k := range s.keys {
		if k.id == keyID {
			m := k.macs.Get().(hash.Hash)
			defer k.macs.Put(m)
			m.Reset()
			m.Write([]byte(purpose))
			m.Write([]byte{0})
			m.Write(data)
			return m.Sum(nil)
		}
	}
	return nil
}
