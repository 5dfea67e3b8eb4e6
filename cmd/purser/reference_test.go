package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReferenceIsFresh(t *testing.T) {
	for name, write := range references {
		var b strings.Builder
		if err := write(&b, rootCommand()); err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(filepath.Join(repositoryRoot(t), "docs", "reference", name+".md"))
		if err != nil {
			t.Fatal(err)
		}
		if b.String() != string(file) {
			t.Errorf("docs/reference/%s.md is not what `make docs` writes", name)
		}
	}
}
