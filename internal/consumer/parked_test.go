package consumer_test

import (
	"slices"
	"testing"
)

func TestParkedAreTheKeysOfTheBuildThatAreBehind(t *testing.T) {
	w := newWorld(t)
	w.run(w.models()...)
	w.log.append("a-good", 1)
	w.log.append("a-bad", -1)
	w.await("accounts", "", w.log.append("b-good", 1))
	if _, err := w.pool.Exec(t.Context(), "INSERT INTO consumer.parked (build, key, position, cause) VALUES ('entries_v1_b1', 'good', 1, '')"); err != nil {
		t.Fatal(err)
	}
	type row struct{ Key string }
	if got := query[row](w, w.place(w.accounts).Parked()); !slices.Equal(got, []row{{"bad"}}) {
		t.Errorf("%v", got)
	}
}
