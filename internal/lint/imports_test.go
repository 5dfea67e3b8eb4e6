package lint

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/purserhq/purser/"

// rule says what the packages below a path may import of ours, or of others what they must not.
type rule struct {
	of    string
	allow []string // prefixes of our own packages
	deny  []string // prefixes of anybody's packages
	why   string
}

var rules = []rule{
	{
		of:    "internal/domain/",
		allow: []string{"internal/domain/", "internal/fault", "proto/purser/type/v1", "proto/purser/catalog/event/", "proto/purser/inventory/event/", "proto/purser/order/event/", "proto/purser/payment/event/", "proto/purser/fulfillment/event/"},
		deny:  []string{"google.golang.org/grpc", "github.com/jackc/", "log", "os", "net", "math/rand", "context", "database/sql"},
		why:   "the domain is pure",
	},
	{
		of:    "internal/eventlog",
		allow: []string{"internal/eventlog"},
		why:   "the log knows no event and no domain",
	},
	{
		of:    "internal/aggregate",
		allow: []string{"internal/aggregate", "internal/eventlog", "internal/fault", "internal/origin", "internal/secret", "proto/purser/type/v1"},
		why:   "command handling knows no event and no domain",
	},
	{
		of:    "internal/consumer",
		allow: []string{"internal/consumer", "internal/eventlog", "internal/fault", "internal/migrate", "proto/purser/type/v1"},
		why:   "the consumer knows no event and no domain",
	},
	{
		of:    "services/eventstore",
		allow: []string{"services/eventstore"},
		why:   "the embedded store is a stranger to the rest",
	},
	{of: "internal/", allow: []string{"internal/", "proto/"}, why: "what is shared knows no service"},
	{of: "examples/", allow: []string{"proto/"}, why: "an example is to be copied by those who have the generated code only"},
	{of: "proto/", allow: []string{"proto/"}, why: "generated code stands alone"},
}

// broken returns the rules that a package breaks by its imports, as sentences.
func broken(pkg string, imports []string) []string {
	var out []string
	for _, r := range rules {
		if !under(pkg, r.of) {
			continue
		}
		for _, i := range imports {
			own, ours := strings.CutPrefix(i, module)
			switch {
			case ours && !anyUnder(own, r.allow), !ours && anyUnder(i, r.deny):
				out = append(out, pkg+" imports "+i+", but "+r.why)
			}
		}
	}
	if strings.HasPrefix(pkg, "services/") {
		service, _, _ := strings.Cut(strings.TrimPrefix(pkg, "services/"), "/")
		for _, i := range imports {
			own, _ := strings.CutPrefix(i, module)
			if strings.HasPrefix(own, "services/") && !under(own, "services/"+service) {
				out = append(out, pkg+" imports "+i+", but services never import each other")
			}
			if strings.HasPrefix(own, "cmd/") {
				out = append(out, pkg+" imports "+i+", but only cmd puts things together")
			}
		}
	}
	return out
}

// under tells whether a path is a prefix's package or below it.
func under(path, prefix string) bool {
	p := strings.TrimSuffix(prefix, "/")
	return path == p && !strings.HasSuffix(prefix, "/") || strings.HasPrefix(path, p+"/")
}

func anyUnder(path string, prefixes []string) bool {
	for _, p := range prefixes {
		if under(path, p) {
			return true
		}
	}
	return false
}

func TestImportsPointOneWay(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", module+"...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := 0
	for d := json.NewDecoder(strings.NewReader(string(out))); ; packages++ {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, b := range broken(strings.TrimPrefix(p.ImportPath, module), p.Imports) {
			t.Error(b)
		}
	}
	if packages < 30 {
		t.Errorf("only %d packages were looked at", packages)
	}
}

func TestTheRulesCanBeBroken(t *testing.T) {
	for pkg, imported := range map[string]string{
		"internal/domain/order":      "google.golang.org/grpc/codes",
		"internal/domain/stock":      module + "internal/eventlog",
		"internal/domain/payment":    module + "proto/purser/payment/v1",
		"internal/aggregate":         module + "internal/domain/order",
		"internal/consumer":          module + "proto/purser/order/event/v1",
		"internal/eventlog":          module + "internal/eventschema",
		"internal/rpc":               module + "services/write",
		"services/write":             module + "services/payment",
		"services/payment/simulator": module + "services/write",
		"services/query":             module + "cmd/purser",
		"services/eventstore":        module + "internal/eventlog",
		"examples/place-order":       module + "internal/fault",
	} {
		if len(broken(pkg, []string{imported})) == 0 {
			t.Errorf("%s may import %s", pkg, imported)
		}
	}
	if b := broken("services/payment/simulator", []string{module + "services/payment/gateway", "context"}); len(b) > 0 {
		t.Errorf("a service may not import its own parts: %v", b)
	}
}
