package bench

import (
	"testing"
	"time"
)

func TestReadPgbench(t *testing.T) {
	for version, rate := range map[string]string{
		"15": "initial connection time = 153.441 ms\ntps = 2500.000000 (without initial connection time)\n",
		"12": "tps = 2100.5 (including connections establishing)\ntps = 2500.0 (excluding connections establishing)\n",
	} {
		s, err := readPgbench("transaction type: pgbench.sql\nnumber of clients: 64\nnumber of transactions actually processed: 5000\nlatency average = 3 ms\n" + rate)
		if err != nil || s.Units != 5000 || s.Elapsed != 2*time.Second {
			t.Errorf("of version %s: %+v, %v", version, s, err)
		}
	}
	for _, report := range []string{"pgbench: aborted", "number of transactions actually processed: 0\n"} {
		if s, err := readPgbench(report); err == nil {
			t.Errorf("got %+v of %q", s, report)
		}
	}
}
