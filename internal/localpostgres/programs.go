//go:build unix

package localpostgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// ErrNotInstalled says that the machine has no Postgres server.
var ErrNotInstalled = errors.New("no PostgreSQL server (initdb and postgres) was found on this machine")

// machine is what Start finds around it.
type machine struct {
	directories []string   // that may hold the Postgres programs, the best first
	identities  []identity // that the server may run under, the best first
}

func thisMachine() machine {
	return machine{directories: programDirectories(), identities: identities()}
}

// programs are the Postgres programs of one installation.
type programs struct {
	initdb, postgres string // absolute paths
	major            string // version, as in the PG_VERSION file of a cluster
}

// versionedDirectories are where systems keep Postgres programs out of PATH. deploy/install-postgres.sh has the same.
var versionedDirectories = []string{
	"/usr/lib/postgresql/*/bin",         // Debian
	"/usr/pgsql-*/bin",                  // RHEL and Fedora, from postgresql.org
	"/usr/lib/postgresql*/bin",          // SUSE
	"/usr/libexec/postgresql*",          // Alpine
	"/opt/homebrew/opt/postgresql*/bin", // Homebrew on ARM
	"/usr/local/opt/postgresql*/bin",    // Homebrew on Intel
	"/usr/local/pgsql/bin",              // built from source
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

func programDirectories() []string {
	directories := filepath.SplitList(os.Getenv("PATH"))
	for _, pattern := range versionedDirectories {
		found, _ := filepath.Glob(pattern) // fails for a bad pattern only
		slices.SortStableFunc(found, func(a, b string) int { return cmp.Compare(versionIn(b), versionIn(a)) })
		directories = append(directories, found...)
	}
	return directories
}

var number = regexp.MustCompile(`\d+(\.\d+)?`)

func versionIn(path string) float64 {
	version, _ := strconv.ParseFloat(number.FindString(path), 64) // none is the lowest
	return version
}

var reportedVersion = regexp.MustCompile(`\(PostgreSQL\) (9\.\d+|\d+)`)

// programsFor picks the best installation, or for a cluster that exists, the best of its version: Postgres opens no
// other's files.
func (m machine) programsFor(ctx context.Context, data string) (programs, error) {
	wanted, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return programs{}, fmt.Errorf("read the version of the Postgres cluster: %w", err)
	}
	major := strings.TrimSpace(string(wanted))

	var others []string
	for _, directory := range m.directories {
		p, ok := programsIn(directory)
		if !ok {
			continue
		}
		said, err := exec.CommandContext(ctx, p.postgres, "-V").Output()
		version := reportedVersion.FindSubmatch(said)
		if err != nil || version == nil {
			continue
		}
		p.major = string(version[1])
		if major == "" || major == p.major {
			return p, nil
		}
		if !slices.Contains(others, p.major) {
			others = append(others, p.major)
		}
	}
	if err := ctx.Err(); err != nil {
		return programs{}, fmt.Errorf("look for Postgres: %w", err)
	}
	if others != nil {
		return programs{}, fmt.Errorf("the cluster in %s is of PostgreSQL %s, and this machine has only %s: install that version, or move the directory away",
			data, major, strings.Join(others, ", "))
	}
	return programs{}, fmt.Errorf("%w: install one%s", ErrNotInstalled, installHint())
}

// programsIn looks beside the file that initdb is a link to, where the server surely is, and then in directory itself.
func programsIn(directory string) (programs, bool) {
	directory, err := filepath.Abs(directory)
	if err != nil {
		return programs{}, false
	}
	target, err := filepath.EvalSymlinks(filepath.Join(directory, "initdb"))
	if err != nil {
		return programs{}, false
	}
	for _, d := range []string{filepath.Dir(target), directory} {
		p := programs{initdb: filepath.Join(d, "initdb"), postgres: filepath.Join(d, "postgres")}
		if executable(p.initdb) && executable(p.postgres) {
			return p, true
		}
	}
	return programs{}, false
}

func executable(file string) bool {
	const mayExecute = 1
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && syscall.Access(file, mayExecute) == nil
}

func installHint() string {
	for _, manager := range []struct{ program, command string }{
		{"apt-get", "apt-get install postgresql"},
		{"dnf", "dnf install postgresql-server"},
		{"apk", "apk add postgresql"},
		{"pacman", "pacman -S postgresql"},
		{"zypper", "zypper install postgresql-server"},
		{"brew", "brew install postgresql@17"},
	} {
		if _, err := exec.LookPath(manager.program); err == nil {
			return ", for example with `" + manager.command + "`"
		}
	}
	return ""
}
