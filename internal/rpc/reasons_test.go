package rpc

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/fault"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

func TestAdviceOnEveryReason(t *testing.T) {
	for n, name := range typev1.ErrorReason_name {
		a := advice(typev1.ErrorReason(n))
		if n == 0 {
			if a != nil {
				t.Errorf("%s has advice, and is given by nobody", name)
			}
			continue
		}
		if a.GetRetry() == typev1.Retry_RETRY_UNSPECIFIED || a.GetMeaning() == "" || a.GetAction() == "" {
			t.Errorf("%s has no full advice: %v", name, a)
		}
		if (a.GetRetry() == typev1.Retry_RETRY_AFTER_DELAY) != (a.GetCode() == "UNAVAILABLE") {
			t.Errorf("%s: UNAVAILABLE, and it alone, has a RetryInfo to wait for", name)
		}
	}
}

// Wherever a fault is made, its kind becomes the code that clients are told of; and they are told of nothing that never comes.
func TestFaultsKeepToTheAdvice(t *testing.T) {
	used := map[string]bool{}
	for _, u := range reasonsInUse(t, "../../services", "../../internal") {
		used[u.reason] = true
		n, ok := typev1.ErrorReason_value[u.reason]
		if !ok {
			t.Errorf("%s: there is no %s", u.at, u.reason)
			continue
		}
		kind, ok := kindNames()[u.kind]
		if !ok {
			t.Errorf("%s: this test can't tell the kind of the fault with %s", u.at, u.reason)
			continue
		}
		if got, want := codeOf[kind], codeAdvised(t, typev1.ErrorReason(n)); got != want {
			t.Errorf("%s: %s comes with %s, and clients are told %s", u.at, u.reason, got, want)
		}
	}
	for n, name := range typev1.ErrorReason_name {
		if n != 0 && !used[name] {
			t.Errorf("%s is given by nobody", name)
		}
	}
}

func advice(r typev1.ErrorReason) *typev1.ErrorAdvice {
	a, _ := proto.GetExtension(r.Descriptor().Values().ByNumber(r.Number()).Options(), typev1.E_Advice).(*typev1.ErrorAdvice)
	return a
}

func codeAdvised(t *testing.T, r typev1.ErrorReason) codes.Code {
	t.Helper()
	var c codes.Code
	if err := c.UnmarshalJSON([]byte(`"` + advice(r).GetCode() + `"`)); err != nil {
		t.Errorf("%s: %v", r, err)
	}
	return c
}

// kindNames are the kinds by their names in package fault, and by those of its functions that make a fault of one kind.
func kindNames() map[string]fault.Kind {
	return map[string]fault.Kind{
		"Internal": fault.Internal, "Invalid": fault.Invalid, "NotFound": fault.NotFound, "Exists": fault.Exists,
		"Precondition": fault.Precondition, "Aborted": fault.Aborted, "Exhausted": fault.Exhausted, "Unavailable": fault.Unavailable,
		"DeadlineExceeded": fault.DeadlineExceeded, "Cancelled": fault.Cancelled, "Unimplemented": fault.Unimplemented,

		"InvalidField": fault.InvalidField("", "").Kind, "Missing": fault.Missing(0, "", "").Kind,
		"Taken": fault.Taken(0, "", "").Kind, "Refused": fault.Refused(0, "").Kind, "Down": fault.Down(0, "", nil).Kind,
	}
}

// use is a place in the code that makes a fault.
type use struct{ at, reason, kind string }

// reasonsInUse finds where code that is no test makes faults. The kind is what stands nearest around the reason: a function
// of package fault, a literal with a Kind, a key that is a kind, or what the fault was made with whose reason is set.
func reasonsInUse(t *testing.T, dirs ...string) []use {
	t.Helper()
	var found []use
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.PreorderStack(file, nil, func(n ast.Node, around []ast.Node) bool {
				s, ok := n.(*ast.SelectorExpr)
				reason, isReason := "", false
				if ok {
					reason, isReason = strings.CutPrefix(s.Sel.Name, "ErrorReason_ERROR_REASON_")
				}
				if isReason && !asked(around) {
					found = append(found, use{at: files.Position(n.Pos()).String(), reason: reasonPrefix + reason, kind: kindAround(around)})
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// asked tells whether a reason is compared with rather than given.
func asked(around []ast.Node) bool {
	switch n := around[len(around)-1].(type) {
	case *ast.BinaryExpr, *ast.CaseClause:
		return true
	case *ast.CallExpr:
		return ofFault(n.Fun) == "Is"
	}
	return false
}

func kindAround(around []ast.Node) string {
	for i := len(around) - 1; i >= 0; i-- {
		if kind := kindOfNode(around[i]); kind != "" {
			return kind
		}
		if a, ok := around[i].(*ast.AssignStmt); ok {
			return kindOfVariable(a, around[:i])
		}
	}
	return ""
}

// kindOfNode is the kind that an expression gives to the fault in it.
func kindOfNode(n ast.Node) string {
	switch n := n.(type) {
	case *ast.UnaryExpr:
		return kindOfNode(n.X)
	case *ast.CallExpr:
		return ofFault(n.Fun)
	case *ast.KeyValueExpr:
		return ofFault(n.Key)
	case *ast.CompositeLit:
		for _, e := range n.Elts {
			if kv, ok := e.(*ast.KeyValueExpr); ok && fmt.Sprint(kv.Key) == "Kind" {
				if within, ok := kv.Value.(*ast.Ident); ok { // in package fault itself
					return within.Name
				}
				return ofFault(kv.Value)
			}
		}
	}
	return ""
}

// kindOfVariable is the kind that the fault had when it was made whose reason is set.
func kindOfVariable(set *ast.AssignStmt, around []ast.Node) string {
	field, ok := set.Lhs[0].(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	kind := ""
	for _, n := range around {
		f, ok := n.(*ast.FuncDecl)
		if !ok {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if a, ok := n.(*ast.AssignStmt); ok && a.Pos() < set.Pos() && fmt.Sprint(a.Lhs[0]) == fmt.Sprint(field.X) {
				kind = kindOfNode(a.Rhs[0])
			}
			return true
		})
	}
	return kind
}

// ofFault is the name of what is selected from package fault.
func ofFault(e ast.Expr) string {
	if s, ok := e.(*ast.SelectorExpr); ok && fmt.Sprint(s.X) == "fault" {
		return s.Sel.Name
	}
	return ""
}
