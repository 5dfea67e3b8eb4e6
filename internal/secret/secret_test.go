package secret_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/purserhq/purser/internal/secret"
)

const (
	keyA = "a MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n"
	keyB = "b MTEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n"
)

func load(t *testing.T, content string) (*secret.Secret, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return secret.Load(file)
}

func TestRotationKeepsOldKeysVerifying(t *testing.T) {
	before, err := load(t, keyA)
	if err != nil {
		t.Fatal(err)
	}
	after, err := load(t, "# rotated\n"+keyB+keyA)
	if err != nil {
		t.Fatal(err)
	}
	if before.Current() != "a" || after.Current() != "b" {
		t.Errorf("current keys %q and %q", before.Current(), after.Current())
	}
	data := []byte("x")
	if mac := before.MAC("a", "p", data); mac == nil || !bytes.Equal(mac, after.MAC("a", "p", data)) {
		t.Error("the old key makes another MAC after the rotation")
	}
	if bytes.Equal(after.MAC("a", "p", data), after.MAC("b", "p", data)) || bytes.Equal(after.MAC("a", "p", data), after.MAC("a", "q", data)) {
		t.Error("keys or purposes are not kept apart")
	}
	if before.MAC("b", "p", data) != nil {
		t.Error("an unknown key made a MAC")
	}
}

func TestMalformedSecretsAreRefused(t *testing.T) {
	for _, content := range []string{"", "a\n", "a short\n", "a c2hvcnQ=\n", "a.b " + keyA[2:], keyA + "a " + keyB[2:]} {
		if _, err := load(t, content); err == nil {
			t.Errorf("%q was accepted", content)
		} else if strings.Contains(err.Error(), "MDEy") {
			t.Errorf("the error shows the key: %v", err)
		}
	}
}

// A hash made under a key that is gone must not be compared with one of the key that took its place.
func TestEveryGeneratedKeyHasItsOwnID(t *testing.T) {
	var ids []string
	for range 2 {
		s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, s.Current())
	}
	if ids[0] == ids[1] {
		t.Errorf("both are called %s", ids[0])
	}
}

// A key's id is made from the key.
func TestANewKeyIsNamedAfterItself(t *testing.T) {
	id, encoded, _ := strings.Cut(strings.TrimSpace(secret.NewKey()), " ")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if sum := sha256.Sum256(key); err != nil || len(key) != 32 || id != hex.EncodeToString(sum[:4]) {
		t.Errorf("%s, %v", id, err)
	}
}

func TestConcurrentCreatorsAgree(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	macs := make([][]byte, 8)
	var wg sync.WaitGroup
	for i := range macs {
		wg.Go(func() {
			s, err := secret.LoadOrCreate(file)
			if err != nil {
				t.Error(err)
				return
			}
			macs[i] = s.MAC(s.Current(), "p", nil)
		})
	}
	wg.Wait()
	for _, m := range macs {
		if !bytes.Equal(m, macs[0]) {
			t.Fatal("two secrets were made")
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
