package readmodel

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/purserhq/purser/internal/fault"
)

// filter is what a list can be filtered by: AIP-160 over named fields, compared by = and != with literal values, and
// combined by AND, OR and NOT.
type filter struct {
	fields       map[string]filterField
	declarations *filtering.Declarations
}

// filterField has the name of its column.
type filterField struct {
	name   string
	kind   *expr.Type
	values []string // of an enum, by their short names; none: any string
}

func stringField(name string) filterField {
	return filterField{name: name, kind: filtering.TypeString}
}

func enumField(name string, e protoreflect.Enum) filterField {
	return filterField{name: name, kind: filtering.TypeEnum(e.Type()), values: shorts(e.Descriptor())}
}

// mustFilter panics where two fields or values of different types have the same name.
func mustFilter(fields ...filterField) *filter {
	f := &filter{fields: map[string]filterField{}}
	and, or, not := filtering.StandardFunctionAnd(), filtering.StandardFunctionOr(), filtering.StandardFunctionNot()
	options := []filtering.DeclarationOption{
		filtering.DeclareFunction(and.GetName(), and.GetFunction().GetOverloads()...),
		filtering.DeclareFunction(or.GetName(), or.GetFunction().GetOverloads()...),
		filtering.DeclareFunction(not.GetName(), not.GetFunction().GetOverloads()...),
	}
	for _, field := range fields {
		f.fields[field.name] = field
		options = append(options, filtering.DeclareIdent(field.name, field.kind))
		for _, v := range field.values {
			options = append(options, filtering.DeclareIdent(v, field.kind))
		}
		for _, op := range []string{filtering.FunctionEquals, filtering.FunctionNotEquals} {
			options = append(options, filtering.DeclareFunction(op,
				filtering.NewFunctionOverload(op+field.name, filtering.TypeBool, field.kind, field.kind)))
		}
	}
	d, err := filtering.NewDeclarations(options...)
	if err != nil {
		panic(err)
	}
	f.declarations = d
	return f
}

// condition is a piece of SQL whose values are parameters, from $1.
type condition struct {
	sql  string
	args []any
}

// translate turns a filter into SQL; the empty filter holds for every row. A filter of any other kind is a fault on the
// field filter.
func (f *filter) translate(text string) (condition, error) {
	if strings.TrimSpace(text) == "" {
		return condition{sql: "true"}, nil
	}
	parsed, err := filtering.ParseFilterString(text, f.declarations)
	if err != nil {
		return condition{}, f.fault(err)
	}
	var c condition
	if c.sql, err = f.expression(parsed.CheckedExpr.GetExpr(), &c.args); err != nil {
		return condition{}, err
	}
	return c, nil
}

func (f *filter) expression(e *expr.Expr, args *[]any) (string, error) {
	call := e.GetCallExpr()
	switch function := call.GetFunction(); function {
	case filtering.FunctionAnd, filtering.FunctionOr:
		left, err := f.expression(call.GetArgs()[0], args)
		if err != nil {
			return "", err
		}
		right, err := f.expression(call.GetArgs()[1], args)
		return "(" + left + " " + function + " " + right + ")", err
	case filtering.FunctionNot:
		operand, err := f.expression(call.GetArgs()[0], args)
		return "(NOT " + operand + ")", err
	case filtering.FunctionEquals, filtering.FunctionNotEquals:
		return f.comparison(call, args)
	}
	return "", f.fault(nil)
}

func (f *filter) comparison(call *expr.Expr_Call, args *[]any) (string, error) {
	field, ok := f.fields[call.GetArgs()[0].GetIdentExpr().GetName()]
	if !ok {
		return "", f.fault(nil)
	}
	var value string
	switch right := call.GetArgs()[1].GetExprKind().(type) {
	case *expr.Expr_ConstExpr:
		value = right.ConstExpr.GetStringValue()
	case *expr.Expr_IdentExpr:
		value = right.IdentExpr.GetName()
		if !slices.Contains(field.values, value) {
			return "", f.fault(nil)
		}
	default:
		return "", f.fault(nil)
	}
	if strings.Contains(value, "\x00") { // written as an escape, so no check of the request has seen it
		return "", fault.InvalidField("filter", "must not contain the character U+0000")
	}
	*args = append(*args, value)
	return fmt.Sprintf("%s %s $%d", field.name, call.GetFunction(), len(*args)), nil
}

// fault says where a filter can't be read or, if err says nothing of that, what can be written.
func (f *filter) fault(err error) error {
	var at interface {
		Position() filtering.Position
		Message() string
	}
	for e := err; errors.As(e, &at); e = errors.Unwrap(e) {
	}
	if at != nil {
		return fault.InvalidField("filter", "is not a filter by AIP-160: %s at column %d", at.Message(), at.Position().Column)
	}
	var can []string
	for _, field := range f.fields {
		if field.values == nil {
			can = append(can, field.name+" with a quoted string")
		} else {
			can = append(can, field.name+" with one of "+strings.Join(field.values, ", "))
		}
	}
	slices.Sort(can)
	return fault.InvalidField("filter", "can compare by = and != only: %s", strings.Join(can, "; "))
}
