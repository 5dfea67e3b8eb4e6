//go:build unix

package localpostgres

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStartWithoutPostgres(t *testing.T) {
	on := thisMachine()
	on.directories = []string{t.TempDir()}
	_, err := start(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler), on)
	if !errors.Is(err, ErrNotInstalled) || strings.Contains(err.Error(), "\n") {
		t.Errorf("Start = %v, want ErrNotInstalled in one line", err)
	}
}

func TestProgramsFor(t *testing.T) {
	root, data := t.TempDir(), t.TempDir()
	install := func(version string) string {
		bin := filepath.Join(root, version, "bin")
		if err := os.MkdirAll(bin, 0o755); err != nil {
			t.Fatal(err)
		}
		script := fmt.Sprintf("#!/bin/sh\necho 'postgres (PostgreSQL) %s.3 (Debian)'\n", version)
		for _, name := range []string{"initdb", "postgres"} {
			if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return bin
	}
	newest, old := install("17"), install("15")
	path := filepath.Join(root, "path")
	if err := errors.Join(os.Mkdir(path, 0o755), os.Symlink(filepath.Join(old, "initdb"), filepath.Join(path, "initdb"))); err != nil {
		t.Fatal(err)
	}

	on := machine{directories: []string{root, path, newest, old}}
	p, err := on.programsFor(t.Context(), data)
	if err != nil || p.postgres != filepath.Join(old, "postgres") || p.major != "15" {
		t.Errorf("through a link in PATH: %+v, %v", p, err)
	}
	on.directories = []string{newest, old}
	if p, err = on.programsFor(t.Context(), data); err != nil || p.major != "17" {
		t.Errorf("for a new cluster: %+v, %v", p, err)
	}
	if err := os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err = on.programsFor(t.Context(), data); err != nil || p.major != "15" {
		t.Errorf("for a cluster of version 15: %+v, %v", p, err)
	}
	on.directories = []string{newest}
	if _, err = on.programsFor(t.Context(), data); err == nil || !strings.Contains(err.Error(), "of PostgreSQL 15") {
		t.Errorf("for a cluster of a version that is gone: %v", err)
	}
}

func TestVersionIn(t *testing.T) {
	for path, want := range map[string]float64{
		"/usr/lib/postgresql/9.6/bin":            9.6,
		"/usr/lib/postgresql/15/bin":             15,
		"/opt/homebrew/opt/postgresql@17/bin":    17,
		"/opt/homebrew/opt/postgresql/bin":       0,
		"/Applications/Postgres.app/latest/bin/": 0,
	} {
		if got := versionIn(path); got != want {
			t.Errorf("versionIn(%s) = %v, want %v", path, got, want)
		}
	}
}
