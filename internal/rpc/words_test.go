package rpc

import (
	"slices"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/purserhq/purser/internal/fault"
	_ "github.com/purserhq/purser/proto/purser/catalog/v1"
	_ "github.com/purserhq/purser/proto/purser/inventory/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	_ "github.com/purserhq/purser/proto/purser/payment/v1"
	_ "github.com/purserhq/purser/proto/purser/projection/v1"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
)

// A regular expression in a .proto file is told in words, whichever of our messages it is in.
func TestEveryPatternHasWords(t *testing.T) {
	seen := 0
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Messages().Len() {
			fields := file.Messages().Get(i).Fields()
			for j := range fields.Len() {
				rules, _ := proto.GetExtension(fields.Get(j).Options(), validate.E_Field).(*validate.FieldRules)
				if pattern := rules.GetString().GetPattern(); pattern != "" && strings.HasPrefix(string(file.Package()), "purser.") {
					seen++
					if patterns[pattern] == "" {
						t.Errorf("%s: no words for %s", fields.Get(j).FullName(), pattern)
					}
				}
			}
		}
		return true
	})
	if seen == 0 {
		t.Error("no pattern was seen")
	}
}

func TestABrokenPatternIsToldInWords(t *testing.T) {
	f := fault.Of(check(&orderv1.CancelOrderRequest{RequestId: "6a4c6e5e-55e9-4a0c-8a38-6ad2c8f1a004", OrderId: "o 7"}))
	want := fault.Field{Path: "order_id", Description: "must be 1 to 64 letters, digits, dots, underscores or hyphens, and begin with a letter or digit"}
	if f == nil || len(f.Fields) != 1 || f.Fields[0] != want || f.Message != want.Path+": "+want.Description {
		t.Errorf("got %+v", f)
	}
}

// The name of a oneof is in no message that a client sees, so what is told is the fields of which one is missing.
func TestAMissingOneofIsToldByItsFields(t *testing.T) {
	f := fault.Of(check(&queryv1.GetOrderRequest{}))
	const words = "order_id or order_number must be given"
	want := []fault.Field{{Path: "order_id", Description: words}, {Path: "order_number", Description: words}}
	if f == nil || !slices.Equal(f.Fields, want) || f.Message != words {
		t.Errorf("got %+v", f)
	}

	step := func(name string, number, index int) *validate.FieldPathElement {
		return &validate.FieldPathElement{
			FieldName: &name, FieldNumber: proto.Int32(int32(number)), Subscript: &validate.FieldPathElement_Index{Index: uint64(index)},
		}
	}
	for name, c := range map[string]struct {
		path []*validate.FieldPathElement
		want []string
	}{
		"deep in a message": {
			[]*validate.FieldPathElement{step("rows", 2, 2), step("cells", 1, 1), {FieldName: proto.String("value")}},
			[]string{"rows[2].cells[1].text", "rows[2].cells[1].number", "rows[2].cells[1].date", "rows[2].cells[1].money"},
		},
		"a field":              {[]*validate.FieldPathElement{{FieldName: proto.String("rows"), FieldNumber: proto.Int32(2)}}, nil},
		"a path to nothing":    {[]*validate.FieldPathElement{step("gone", 99, 0), {FieldName: proto.String("value")}}, nil},
		"a message as a whole": {nil, nil},
	} {
		if got := membersOf((&queryv1.RunReportResponse{}).ProtoReflect().Descriptor(), &validate.FieldPath{Elements: c.path}); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
