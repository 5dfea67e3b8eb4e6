package consumer_test

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
)

// All does what [eventlog.Log.All] does.
func (l *numberLog) All(context.Context) iter.Seq2[eventlog.Recorded, error] {
	return func(yield func(eventlog.Recorded, error) bool) {
		for _, e := range l.Events() {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (w *world) audit() (differences []string, audited []consumer.Audited, err error) {
	audited, err = consumer.Audit(w.t.Context(), w.pool, w.log, w.models(), func(eventlog.Position) {}, func(d consumer.Difference) {
		line := d.Table + " " + strings.Join(d.Key, "/") + " " + d.What
		if d.Column != "" {
			line += d.Column + ": " + d.Stored + " / " + d.Wanted
		}
		differences = append(differences, line)
	})
	return differences, audited, err
}

// audited expects an audit to find nothing but so many parked keys.
func (w *world) audited(parked int) {
	w.t.Helper()
	differences, audited, err := w.audit()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, a := range audited {
		parked -= len(a.Parked)
	}
	if len(differences) > 0 || parked != 0 {
		w.t.Errorf("the audit finds %q, and %d parked keys too few", differences, parked)
	}
}

func (w *world) eventually(holds func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatal("it does not come about")
		}
	}
}

func TestAuditFindsWhateverIsNotAsTheLogHasIt(t *testing.T) {
	w := newWorld(t)
	w.run(w.models()...)
	for i := range 30 {
		w.log.append(fmt.Sprintf("%s-k%d", []string{"a", "b", "c"}[i%3], i%4), int64(i))
	}
	w.log.append("a-bad", 5)
	w.log.append("a-bad", -1)
	w.log.append("a-bad", 6)
	w.settled()
	w.audited(1)
	total := w.account("k1").Total
	for name, c := range map[string]struct{ tamper, want string }{
		"a column of a row":            {`UPDATE {accounts} SET total = total + 1 WHERE id = 'k1'`, fmt.Sprintf("accounts k1 total: %d / %d", total+1, total)},
		"a nested column of a row":     {`UPDATE {accounts} SET seen = '[1]' WHERE id = 'bad'`, "accounts bad seen: [1] / [5]"},
		"a time of a row":              {`UPDATE {accounts} SET updated = '2020-01-01T00:00:00Z' WHERE id = 'bad'`, "accounts bad updated: "},
		"the revisions of a row":       {`UPDATE {accounts} SET _revisions = '{"a-bad": 1}' WHERE id = 'bad'`, `accounts bad _revisions: {"a-bad": 1} / {"a-bad": 0}`},
		"a row that is gone":           {`DELETE FROM {accounts} WHERE id = 'k2'`, "accounts k2 is missing"},
		"a row without a key":          {`INSERT INTO {accounts} VALUES ('nobody', '', 0, '[]', now(), '{}', 0)`, "accounts nobody is there, and nothing in the log calls for it"},
		"a sum of a report":            {`UPDATE {brackets} SET sum = 7 WHERE tens = '0'`, "brackets 0 sum: 7 / 5"},
		"a line too many of a report":  {`INSERT INTO {brackets} VALUES ('77', 0, 0, 3, 0)`, "brackets 77 is there, and nothing in the log calls for it"},
		"a line too few of a report":   {`DELETE FROM {brackets} WHERE tens = '0'`, "brackets 0 is missing"},
		"the count behind a line":      {`UPDATE {brackets} SET _contributions = 9 WHERE tens = '0'`, "brackets 0 _contributions: 9 / 1"},
		"an entry of a list":           {`UPDATE {wishes} SET total = 1 WHERE key = 'bad'`, "wishes even/bad total: 1 / 5"},
		"an entry too many of a list":  {`INSERT INTO {wishes} VALUES ('odd', 1, '', 'bad', 0)`, "wishes odd/bad is there, and nothing in the log calls for it"},
		"an entry too few of a list":   {`DELETE FROM {wishes} WHERE key = 'bad'`, "wishes even/bad is missing"},
		"a row of a journal":           {`UPDATE {entries} SET n = 9 WHERE id = 'bad' AND revision = 0`, "entries bad/0 n: 9 / 5"},
		"a row too many of a journal":  {`INSERT INTO {entries} VALUES ('bad', 77, 0)`, "entries bad/77 is there, and nothing in the log calls for it"},
		"a row of nobody in a journal": {`INSERT INTO {entries} VALUES ('nobody', 0, 0)`, "entries nobody/0 is there, and nothing in the log calls for it"},
		"a row too few of a journal":   {`DELETE FROM {entries} WHERE id = 'bad' AND revision = 0`, "entries bad/0 is missing"},
		"nothing but the reader's own": {`UPDATE {wishes} SET notes = 'mine'`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			sql := strings.NewReplacer("{accounts}", w.table(w.accounts), "{brackets}", w.table(w.brackets), "{wishes}", w.table(w.wishes), "{entries}", w.table(w.entries)).Replace(c.tamper)
			tables := []string{w.table(w.accounts), w.table(w.brackets), w.table(w.wishes), w.table(w.entries)}
			for i, table := range tables {
				w.exec(t, fmt.Sprintf("CREATE TABLE saved_%d AS TABLE %s", i, table))
			}
			w.exec(t, sql)
			differences, _, err := w.audit()
			switch {
			case err != nil:
				t.Error(err)
			case c.want == "" && len(differences) > 0, c.want != "" && (len(differences) != 1 || !strings.HasPrefix(differences[0], c.want)):
				t.Errorf("found %q, want %q", differences, c.want)
			}
			for i, table := range tables {
				w.exec(t, fmt.Sprintf("DELETE FROM %s; INSERT INTO %s TABLE saved_%d; DROP TABLE saved_%d", table, table, i, i))
			}
		})
	}
	w.audited(1)
}

func (w *world) exec(t *testing.T, sql string) {
	t.Helper()
	if _, err := w.pool.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// What is being changed while it is audited is no difference.
func TestAuditBesideConsumersAtWork(t *testing.T) {
	w := newWorld(t)
	w.run(w.models()...)
	ctx, cancel := context.WithCancel(t.Context())
	var appending sync.WaitGroup
	appending.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			w.log.append(fmt.Sprintf("%s-k%d", []string{"a", "b", "c"}[i%3], i%7), int64(i%11))
			time.Sleep(time.Millisecond)
		}
	})
	for range 20 {
		w.audited(0)
	}
	cancel()
	appending.Wait()
}

func TestAuditOfWhatIsNotThere(t *testing.T) {
	w := newWorld(t)
	differences, audited, err := w.audit()
	if err != nil || len(differences) > 0 || len(audited) != 2 || fmt.Sprint(audited[0].Missing, audited[1].Missing) != "[accounts brackets wishes] [entries]" {
		t.Errorf("nothing was ever run: %q, %+v, %v", differences, audited, err)
	}
	_, stop := w.run(w.models()...)
	w.log.append("a-k", 1)
	w.settled()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.brackets.Version = 2
	if _, audited, err = w.audit(); err != nil || fmt.Sprint(audited[0].Missing, len(audited[1].Missing)) != "[brackets] 0" {
		t.Errorf("of a report that is not made yet: %+v, %v", audited, err)
	}
	w.brackets.Version = 1
	_, audited, err = w.audit()
	if err != nil || slices.ContainsFunc(audited, func(a consumer.Audited) bool { return a.Missing != nil || a.Keys != 1 || a.Position != w.log.head() }) {
		t.Errorf("%+v, %v", audited, err)
	}
	w.exec(t, fmt.Sprintf("UPDATE consumer.checkpoints SET event_id = '%s'", uuid.New()))
	if _, _, err = w.audit(); err == nil || !strings.Contains(err.Error(), "another event store") {
		t.Errorf("of another log: %v", err)
	}
}
