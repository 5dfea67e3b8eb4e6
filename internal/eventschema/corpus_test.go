package eventschema

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// testdata has TYPE.vN.json for every version ever stored, and for those that are no longer written TYPE.vN.reads.json:
// what it reads as today.
func TestEveryVersionEverStoredIsReadable(t *testing.T) {
	r := New()
	seen := map[string]bool{"SHA256SUMS": true, "ENUMS": true}
	for name, latest := range r.latest {
		for v := 1; v <= latest; v++ {
			t.Run(fmt.Sprintf("%s.v%d", name, v), func(t *testing.T) {
				file := fmt.Sprintf("%s.v%d.json", name, v)
				seen[file] = true
				data := golden(t, file)
				messages, err := r.Decode(name, v, ContentTypeJSON, data)
				if err != nil {
					t.Fatal(err)
				}
				type typed struct {
					Type string          `json:"type"`
					Data json.RawMessage `json:"data"`
				}
				want := []typed{{name, data}}
				if _, old := r.upcasters[schema{name, v}]; old {
					file := fmt.Sprintf("%s.v%d.reads.json", name, v)
					seen[file] = true
					if err := json.Unmarshal(golden(t, file), &want); err != nil {
						t.Fatal(err)
					}
				}
				if len(messages) != len(want) {
					t.Fatalf("reads as %d messages, want %d", len(messages), len(want))
				}
				for i, m := range messages {
					got, err := r.Encode(m)
					if err != nil {
						t.Fatal(err)
					}
					if got.Type != want[i].Type {
						t.Errorf("message %d is %s, want %s", i, got.Type, want[i].Type)
					}
					sameJSON(t, got.Data, want[i].Data)
				}
			})
		}
	}
	for _, file := range corpus(t) {
		if !seen[file] {
			t.Errorf("%s was not looked at: a version that was stored must stay known", file)
		}
	}
}

// What is stored never changes. testdata/SHA256SUMS has the sum of every event of the corpus, as sha256sum writes it;
// what an event reads as may change with the messages of today.
func TestStoredEventsNeverChange(t *testing.T) {
	sums := map[string]string{}
	for _, line := range lines(t, "SHA256SUMS") {
		sum, file, ok := strings.Cut(line, "  ")
		if !ok {
			t.Fatalf("SHA256SUMS: %q", line)
		}
		sums[file] = sum
	}
	for _, file := range corpus(t) {
		if !strings.HasSuffix(file, ".json") || strings.HasSuffix(file, ".reads.json") {
			continue
		}
		got := fmt.Sprintf("%x", sha256.Sum256(golden(t, file)))
		switch want, ok := sums[file]; {
		case !ok:
			t.Errorf("%s is new, and SHA256SUMS lacks the line\n%s  %s", file, got, file)
		case got != want:
			t.Errorf("%s was changed: events of this version are stored as it was, so give the event a new version, unless no release has stored this one yet", file)
		}
		delete(sums, file)
	}
	for file := range sums {
		t.Errorf("%s is gone: events of this version are stored", file)
	}
}

// A build that does not know a value of an enum would read it as unspecified, so a new value needs a new version of every
// event that may have it, which `make proto-breaking` can't see. testdata/ENUMS has the values that each version was
// stored with; once it was released, a line of it never changes.
func TestNewEnumValuesNeedANewVersion(t *testing.T) {
	recorded := map[string]string{}
	for _, line := range lines(t, "ENUMS") {
		field, values, _ := strings.Cut(line, ": ")
		recorded[field] = values
	}
	for _, e := range events() {
		d := e.message.ProtoReflect().Descriptor()
		for path, values := range enums(d, fmt.Sprintf("%s.v%d", d.Name(), e.version)) {
			switch want, ok := recorded[path]; {
			case !ok:
				t.Errorf("ENUMS lacks the line\n%s: %s", path, values)
			case values != want:
				t.Errorf("%s has the values %s, and was stored with %s: raise the version of the event, unless no release has stored it yet", path, values, want)
			}
		}
	}
}

// enums are the values of the enums in a message and its parts, by the paths of their fields.
func enums(d protoreflect.MessageDescriptor, path string) map[string]string {
	found := map[string]string{}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		field := path + "." + string(f.Name())
		if e := f.Enum(); e != nil {
			var names []string
			for j := range e.Values().Len() {
				names = append(names, string(e.Values().Get(j).Name()))
			}
			found[field] = strings.Join(names, " ")
		}
		if part := f.Message(); part != nil {
			for path, values := range enums(part, field) {
				found[path] = values
			}
		}
	}
	return found
}

// corpus names the files of testdata.
func corpus(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() {
			files = append(files, e.Name())
		}
	}
	return files
}

func golden(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func lines(t *testing.T, name string) []string {
	t.Helper()
	return strings.Split(strings.TrimSpace(string(golden(t, name))), "\n")
}

func sameJSON(t *testing.T, got, want []byte) {
	t.Helper()
	var g, w any
	if err := errors.Join(json.Unmarshal(got, &g), json.Unmarshal(want, &w)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("got %s, want %s", got, want)
	}
}
