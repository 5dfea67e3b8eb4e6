package rpc

import (
	"errors"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/purserhq/purser/internal/fault"
	_ "github.com/purserhq/purser/proto/purser/catalog/v1"
	_ "github.com/purserhq/purser/proto/purser/inventory/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	_ "github.com/purserhq/purser/proto/purser/payment/v1"
	_ "github.com/purserhq/purser/proto/purser/projection/v1"
	_ "github.com/purserhq/purser/proto/purser/query/v1"
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
	var invalid *protovalidate.ValidationError
	if err := check(&orderv1.CancelOrderRequest{RequestId: "6a4c6e5e-55e9-4a0c-8a38-6ad2c8f1a004", OrderId: "o 7"}); !errors.As(err, &invalid) {
		t.Fatalf("got %v", err)
	}
	f := violations(invalid)
	want := fault.Field{Path: "order_id", Description: "must be 1 to 64 letters, digits, dots, underscores or hyphens, and begin with a letter or digit"}
	if len(f.Fields) != 1 || f.Fields[0] != want || f.Message != want.Path+": "+want.Description {
		t.Errorf("got %q, %+v", f.Message, f.Fields)
	}
}
