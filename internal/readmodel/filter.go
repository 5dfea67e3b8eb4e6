package readmodel

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

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
// field filter, which says where it is and what could be there, but no value: that may be personal.
func (fs fields) filter(text string) (condition, error) {
	if strings.TrimSpace(text) == "" {
		return condition{sql: "true"}, nil
	}
	var p filtering.Parser
	p.Init(text)
	parsed, err := p.Parse()
	if err != nil {
		return condition{}, unreadable(text, err)
	}
	r := filterReader{fields: fs, text: text, offsets: parsed.GetSourceInfo().GetPositions()}
	if r.sql, err = r.expression(parsed.GetExpr()); err != nil {
		return condition{}, err
	}
	return r.condition, nil
}

// filterReader turns one filter into a condition.
type filterReader struct {
	fields
	condition
	text    string
	offsets map[int64]int32 // in text, of expressions by their ids
}

func (r *filterReader) expression(e *expr.Expr) (string, error) {
	if f, ok := r.named(path(e)); ok {
		if f.kind != boolKind {
			return "", r.wrong(e, "%s", f.takes())
		}
		return f.column, nil
	}
	function, args := e.GetCallExpr().GetFunction(), e.GetCallExpr().GetArgs()
	if function == filtering.FunctionNot && len(args) == 1 {
		operand, err := r.expression(args[0])
		return "(NOT " + operand + ")", err
	}
	if len(args) != 2 { // the names of operators can be written as those of functions
		return "", r.noField(e)
	}
	switch function {
	case filtering.FunctionAnd, filtering.FunctionOr:
		left, err := r.expression(args[0])
		if err != nil {
			return "", err
		}
		right, err := r.expression(args[1])
		return "(" + left + " " + function + " " + right + ")", err
	case filtering.FunctionFuzzyAnd:
		for args[0].GetCallExpr().GetFunction() == filtering.FunctionFuzzyAnd { // the first that lacks it
			args = args[0].GetCallExpr().GetArgs()
		}
		return "", r.wrong(args[1], "must have AND or OR before this")
	case filtering.FunctionEquals, filtering.FunctionNotEquals, filtering.FunctionHas, filtering.FunctionLessThan,
		filtering.FunctionLessEquals, filtering.FunctionGreaterThan, filtering.FunctionGreaterEquals:
		return r.comparison(args[0], function, args[1])
	}
	return "", r.noField(e)
}

func (r *filterReader) comparison(left *expr.Expr, operator string, right *expr.Expr) (string, error) {
	f, ok := r.named(path(left))
	if !ok {
		return "", r.noField(left)
	}
	if !slices.Contains(f.operators(), operator) {
		return "", r.wrong(left, "%s", f.takes())
	}
	value, ok := f.value(right)
	if !ok {
		return "", r.wrong(right, "%s", f.takes())
	}
	if s, ok := value.(string); ok && strings.Contains(s, "\x00") { // written as an escape, so no check of the request has seen it
		return "", r.wrong(right, "%s is not compared with the character U+0000", f.name)
	}
	if holds, ok := value.(bool); ok { // as the condition of a partial index is written
		if holds == (operator == filtering.FunctionEquals) {
			return f.column, nil
		}
		return "(NOT " + f.column + ")", nil
	}
	return f.column + " " + operator + " " + r.param(value), nil
}

// path is the name of a field, such as total.currency_code; "" for anything else.
func path(e *expr.Expr) string {
	if s := e.GetSelectExpr(); s != nil {
		return path(s.GetOperand()) + "." + s.GetField()
	}
	return e.GetIdentExpr().GetName()
}

// noField says that something is compared, or stands alone, that is no field.
func (r *filterReader) noField(e *expr.Expr) error {
	return r.wrong(e, "%s is no field that can be compared; the fields are %s", cmp.Or(path(e), "this"), r.names(func(field) bool { return true }))
}

func (r *filterReader) wrong(e *expr.Expr, format string, args ...any) error {
	return wrongAt(r.text, r.offsets[e.GetId()], fmt.Sprintf(format, args...))
}

// wrongAt says what is wrong with a filter at an offset, which the parser counts without the spaces before.
func wrongAt(text string, offset int32, what string) error {
	spaces := len(text) - len(strings.TrimLeftFunc(text, unicode.IsSpace))
	column := utf8.RuneCountInString(text[:spaces+int(offset)]) + 1
	return fault.InvalidField("filter", "at column %d: %s", column, what)
}

// unreadable says where a text stops being a filter.
func unreadable(text string, err error) error {
	var at interface {
		Position() filtering.Position
		Message() string
	}
	for e := err; errors.As(e, &at); e = errors.Unwrap(e) {
	}
	const should = "must be a filter by AIP-160: comparisons of fields with names, numbers or texts in quotes, joined by AND and OR"
	if at == nil {
		return fault.InvalidField("filter", should)
	}
	what := at.Message()
	if int(at.Position().Offset) == len(strings.TrimSpace(text)) {
		what = "something is missing"
	}
	return wrongAt(text, at.Position().Offset, what+"; it "+should)
}
