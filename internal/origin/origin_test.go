package origin

import (
	"strings"
	"testing"

	"github.com/purserhq/purser/internal/fault"
)

func TestCheck(t *testing.T) {
	for _, good := range []string{"", "ann", "Ann Ö. 日本", strings.Repeat("x", maxLength)} {
		if err := (Origin{Actor: good}).Check(); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"a\x00b", "a\tb", "a\nb", "a\x7fb", "a\u0085b", "a\xffb", strings.Repeat("x", maxLength+1)} {
		for field, o := range map[string]Origin{
			"purser-actor": {Actor: bad}, "purser-correlation-id": {CorrelationID: bad},
			"purser-causation-id": {CausationID: bad}, "traceparent": {Traceparent: bad},
		} {
			if f := fault.Of(o.Check()); f == nil || f.Kind != fault.Invalid || f.Fields[0].Path != field {
				t.Errorf("%s %q: %v", field, bad, f)
			}
		}
	}
}
