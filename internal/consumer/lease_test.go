package consumer_test

import (
	"testing"

	"github.com/purserhq/purser/internal/consumer"
)

func TestEndedLeasesAreNotWaitedFor(t *testing.T) {
	w := newWorld(t)
	if err := consumer.EndLeases(t.Context(), w.pool); err != nil {
		t.Errorf("where nothing was made yet: %v", err)
	}
	_, stop := w.run(w.models()...)
	w.log.append("a-7", 1)
	w.settled()
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	// As if one had died whose leases go on for long.
	for _, sql := range []string{
		`UPDATE consumer.leases SET member = '6a4c6e5e-55e9-4a0c-8a38-6ad2c8f1a001', expires_at = now() + interval '1 hour'`,
		`INSERT INTO consumer.members (build, member, seen_at, caught_up)
			SELECT build, '6a4c6e5e-55e9-4a0c-8a38-6ad2c8f1a001', now() + interval '1 hour', true FROM consumer.builds`,
	} {
		if _, err := w.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := consumer.EndLeases(t.Context(), w.pool); err != nil {
		t.Fatal(err)
	}
	c, _ := w.run(w.models()...)
	w.log.append("b-7", 2)
	w.settled()
	for _, b := range w.status(c, "accounts").Builds {
		if b.Processes != 1 || b.Partitions != 16 {
			t.Errorf("%d processes run %d partitions of %s", b.Processes, b.Partitions, b.Name)
		}
	}
}
