package lint

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The checks of the protos are shown to fail on what they are there to catch.
func TestProtoChecksCanFail(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, ".proto-deps", "buf")); err != nil {
		t.Fatal("validate.proto is missing: make proto-deps")
	}
	breaking := []string{"breaking", "proto", "--against", "proto/baseline.binpb"}
	lint := []string{"lint", "proto"}
	for _, c := range []struct {
		name, file, old, new string
		check                []string
		fails                bool
	}{
		{"as it is", "", "", "", breaking, false},
		{"as it is", "", "", "", lint, false},
		{
			"a field of a stored event changes its type", "proto/purser/order/event/v1/events.proto",
			"string order_number = 2;", "int64 order_number = 2;", breaking, true,
		},
		{
			"a method is gone", "proto/purser/order/v1/order_service.proto",
			"rpc MarkCancelled(MarkCancelledRequest) returns (MarkCancelledResponse);", "", breaking, true,
		},
		{
			"an enum value without its prefix", "proto/purser/type/v1/priority.proto",
			"PRIORITY_CRITICAL = 3;", "CRITICAL = 3;", lint, true,
		},
	} {
		t.Run(c.name+": "+c.check[0], func(t *testing.T) {
			dir := t.TempDir()
			for _, part := range []string{"proto", ".proto-deps", "buf.yaml"} {
				if out, err := exec.CommandContext(t.Context(), "cp", "-r", filepath.Join(root, part), dir).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			if c.file != "" {
				replace(t, filepath.Join(dir, c.file), c.old, c.new)
			}
			cmd := exec.CommandContext(t.Context(), bufBinary(t, root), c.check...)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if (err != nil) != c.fails {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func replace(t *testing.T, file, old, new string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		t.Fatalf("%s has no %q", file, old)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), old, new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func bufBinary(t *testing.T, root string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "tool", "-n", "buf")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
