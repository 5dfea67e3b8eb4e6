package storage

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// fileError says in one sentence that a file can't be read as it was written.
type fileError struct {
	name  string
	cause error
}

func (e *fileError) Error() string {
	cause := oneLine{e.cause}.Error()
	// Pebble gives a number to the file that it reads, but not always the right one.
	for _, subject := range []string{"pebble: file ", "pebble/table: invalid table "} {
		if rest, ok := strings.CutPrefix(cause, subject); ok {
			_, rest, _ = strings.Cut(rest, ": ")
			cause = strings.Trim(rest, "()")
		}
	}
	return fmt.Sprintf("the table %s is damaged: %s", e.name, cause)
}

func (e *fileError) Unwrap() error { return e.cause }

// readError makes a *fileError of what Pebble answers when it reads a damaged table, and leaves every other error as it is.
func readError(err error) error {
	if err == nil {
		return nil
	}
	if found := pebble.ExtractDataCorruptionInfo(err); found != nil {
		return &fileError{name: filepath.Base(found.Path), cause: found.Details}
	}
	return err
}

// damageWatch tells of each file that is found damaged, once.
type damageWatch struct {
	log  *slog.Logger
	hook func(file string)

	mu   sync.Mutex
	told map[string]bool
}

func newDamageWatch(log *slog.Logger, hook func(file string)) *damageWatch {
	if hook == nil {
		hook = func(string) {}
	}
	return &damageWatch{log: log, hook: hook, told: make(map[string]bool)}
}

// listener is told by Pebble. The read that comes upon damage fails; what is not damaged can still be read.
func (d *damageWatch) listener() *pebble.EventListener {
	return &pebble.EventListener{
		DataCorruption: d.found,
		BackgroundError: func(err error) {
			if pebble.ExtractDataCorruptionInfo(err) == nil { // or it has been told
				d.log.Error("event store: work in the background failed", "error", oneLine{err})
			}
		},
	}
}

func (d *damageWatch) found(damage pebble.DataCorruptionInfo) {
	if !d.first(damage.Path) {
		return
	}
	d.log.Error("the event store is damaged; restore a backup", "file", damage.Path, "error", oneLine{damage.Details})
	d.hook(damage.Path)
}

func (d *damageWatch) first(path string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	told := d.told[path]
	d.told[path] = true
	return !told
}
