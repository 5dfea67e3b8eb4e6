package readmodel

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"

	"github.com/purserhq/purser/internal/fault"
)

// condition is a piece of SQL whose values are parameters, from $1.
type condition struct {
	sql  string
	args []any
}

// param adds a value, and returns the parameter that stands for it.
func (c *condition) param(value any) string {
	c.args = append(c.args, value)
	return fmt.Sprintf("$%d", len(c.args))
}

// filter turns a filter by AIP-160 into SQL; the empty one holds for every row. A comparison has a field on its left and
// a literal value on its right; comparisons are combined by AND, OR and NOT. Whatever else it holds is a fault on the
// field filter.
func (fs fields) filter(text string) (condition, error) {
	if strings.TrimSpace(text) == "" {
		return condition{sql: "true"}, nil
	}
	var p filtering.Parser
	p.Init(text)
	parsed, err := p.Parse()
	if err != nil {
		return condition{}, unreadable(err)
	}
	var c condition
	if c.sql, err = fs.expression(parsed.GetExpr(), &c); err != nil {
		return condition{}, err
	}
	return c, nil
}

func (fs fields) expression(e *expr.Expr, c *condition) (string, error) {
	if f, ok := fs.named(path(e)); ok && f.kind == boolKind {
		return f.column, nil
	}
	function, args := e.GetCallExpr().GetFunction(), e.GetCallExpr().GetArgs()
	if function == filtering.FunctionNot && len(args) == 1 {
		operand, err := fs.expression(args[0], c)
		return "(NOT " + operand + ")", err
	}
	if len(args) != 2 { // the names of operators can be written as those of functions
		return "", fs.unknown()
	}
	switch function {
	case filtering.FunctionAnd, filtering.FunctionOr:
		left, err := fs.expression(args[0], c)
		if err != nil {
			return "", err
		}
		right, err := fs.expression(args[1], c)
		return "(" + left + " " + function + " " + right + ")", err
	case filtering.FunctionFuzzyAnd:
		return "", fault.InvalidField("filter", "must have AND or OR between its comparisons")
	case filtering.FunctionEquals, filtering.FunctionNotEquals, filtering.FunctionHas, filtering.FunctionLessThan,
		filtering.FunctionLessEquals, filtering.FunctionGreaterThan, filtering.FunctionGreaterEquals:
		return fs.comparison(args[0], function, args[1], c)
	}
	return "", fs.unknown()
}

func (fs fields) comparison(left *expr.Expr, operator string, right *expr.Expr, c *condition) (string, error) {
	f, ok := fs.named(path(left))
	if !ok {
		return "", fs.unknown()
	}
	value, ok := f.value(right)
	if !ok || !slices.Contains(f.operators(), operator) {
		return "", fault.InvalidField("filter", "%s", f.takes())
	}
	if s, ok := value.(string); ok && strings.Contains(s, "\x00") { // written as an escape, so no check of the request has seen it
		return "", fault.InvalidField("filter", "must not contain the character U+0000")
	}
	if holds, ok := value.(bool); ok { // as the condition of a partial index is written
		if holds == (operator == filtering.FunctionEquals) {
			return f.column, nil
		}
		return "(NOT " + f.column + ")", nil
	}
	return f.column + " " + operator + " " + c.param(value), nil
}

// path is the name of a field, such as total.currency_code; "" for anything else.
func path(e *expr.Expr) string {
	if s := e.GetSelectExpr(); s != nil {
		return path(s.GetOperand()) + "." + s.GetField()
	}
	return e.GetIdentExpr().GetName()
}

func (fs fields) unknown() error {
	return fault.InvalidField("filter", "can only compare fields with values; the fields are %s", fs.names(func(field) bool { return true }))
}

// unreadable says where a text stops being a filter.
func unreadable(err error) error {
	var at interface {
		Position() filtering.Position
		Message() string
	}
	for e := err; errors.As(e, &at); e = errors.Unwrap(e) {
	}
	if at == nil {
		return fault.InvalidField("filter", "is not a filter by AIP-160")
	}
	return fault.InvalidField("filter", "is not a filter by AIP-160: %s at column %d", at.Message(), at.Position().Column)
}
