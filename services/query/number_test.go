package query

import (
	"testing"

	"github.com/purserhq/purser/internal/fault"
)

func TestParseNumber(t *testing.T) {
	const want = "7K3M01QXA2TF"
	for _, s := range []string{
		"7K3M01QXA2TF", "7K3M-01QX-A2TF", "7k3m-01qx-a2tf", "7K3M 01QX A2TF", "7K3MOIQXA2TF", "7K3M-oLqx-A2TF",
	} {
		if got, err := parseNumber(s); got != want || err != nil {
			t.Errorf("%s: got %s, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", "7K3M01QXA2T", "7K3M01QXA2TF0", "7K3M01QXA2TU", "7K3M01QX_2TF", "7K3M01QXA2Té", "------------", "7K3M\x0001QXA2TF",
	} {
		got, err := parseNumber(s)
		if f := fault.Of(err); f == nil || f.Fields[0].Path != "order_number" {
			t.Errorf("%q: got %s, %v", s, got, err)
		}
	}
}

func TestGrouped(t *testing.T) {
	if got := grouped("7K3M01QXA2TF"); got != "7K3M-01QX-A2TF" {
		t.Errorf("got %s", got)
	}
}
