package ordernumber

import (
	"path/filepath"
	"testing"

	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/secret"
)

func TestOf(t *testing.T) {
	s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	number := Of(s, "order-1")
	if again := Of(s, "order-1"); again != number {
		t.Errorf("one order has the numbers %s and %s", number, again)
	}
	if other := Of(s, "order-2"); other == number {
		t.Errorf("two orders have the number %s", number)
	}
	if got, err := Parse(Grouped(number)); err != nil || got != number {
		t.Errorf("%s is shown as %s and read as %s, %v", number, Grouped(number), got, err)
	}
}

func TestParseNumber(t *testing.T) {
	const want = "7K3M01QXA2TF"
	for _, s := range []string{
		"7K3M01QXA2TF", "7K3M-01QX-A2TF", "7k3m-01qx-a2tf", "7K3M 01QX A2TF", "7K3MOIQXA2TF", "7K3M-oLqx-A2TF",
	} {
		if got, err := Parse(s); got != want || err != nil {
			t.Errorf("%s: got %s, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", "7K3M01QXA2T", "7K3M01QXA2TF0", "7K3M01QXA2TU", "7K3M01QX_2TF", "7K3M01QXA2Té", "------------", "7K3M\x0001QXA2TF",
	} {
		got, err := Parse(s)
		if f := fault.Of(err); f == nil || f.Fields[0].Path != "order_number" {
			t.Errorf("%q: got %s, %v", s, got, err)
		}
	}
}

func TestGrouped(t *testing.T) {
	if got := Grouped("7K3M01QXA2TF"); got != "7K3M-01QX-A2TF" {
		t.Errorf("got %s", got)
	}
}
