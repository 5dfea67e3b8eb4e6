package saga

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestDueIsInOrder(t *testing.T) {
	w := newWorld(t)
	now := time.Now()
	add := func(order string, priority int64, age time.Duration, next time.Time) {
		it := item("RESERVE_STOCK", "mug")
		it.OrderID, it.Priority, it.Since, it.NextTry = order, priority, now.Add(-age), next
		w.add(it)
	}
	add("young", 1, time.Second, time.Time{})
	add("old", 1, time.Hour, now.Add(-time.Second))
	add("critical", 3, time.Second, time.Time{})
	add("expedited", 2, time.Minute, time.Time{})
	add("waiting", 3, time.Hour, now.Add(time.Minute))
	add("resting", 3, time.Hour, time.Time{})
	w.add(item("CONFIRM_ORDER", ""))
	resting := itemKey{"resting", "RESERVE_STOCK", "mug"}
	tasks, err := w.list.due(t.Context(), []string{"RESERVE_STOCK", "RELEASE_STOCK"}, now, []itemKey{resting}, 3)
	var got []string
	for _, task := range tasks {
		got = append(got, task.OrderID)
	}
	if want := "[critical expedited old]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v, %v, want %s", got, err, want)
	}
	b, err := w.list.backlogs(t.Context())
	if err != nil || len(b) != 2 {
		t.Fatalf("%v, %v", b, err)
	}
	for _, step := range b {
		if step.Step == "RESERVE_STOCK" && (step.Items != 6 || now.Sub(step.Oldest).Round(time.Minute) != time.Hour) {
			t.Errorf("%+v", step)
		}
	}
}

// What an order wants is not known while an event of its can't be applied, a cancellation, say.
func TestParkedOrdersRest(t *testing.T) {
	w := newWorld(t)
	parked, other := item("CONFIRM_ORDER", ""), item("CONFIRM_ORDER", "")
	parked.OrderID = "8"
	w.add(parked, other)
	w.exec("INSERT INTO parked VALUES ('8')")
	tasks, err := w.list.due(t.Context(), []string{"CONFIRM_ORDER"}, time.Now(), nil, 10)
	if err != nil || len(tasks) != 1 || tasks[0].OrderID != "7" {
		t.Errorf("%v, %v, want the order that is not parked", tasks, err)
	}
	w.exec("DELETE FROM parked")
	if tasks, err = w.list.due(t.Context(), []string{"CONFIRM_ORDER"}, time.Now(), nil, 10); err != nil || len(tasks) != 2 {
		t.Errorf("%v, %v, want both once it is parked no more", tasks, err)
	}
}

// A database that does not answer is waited for a moment, and then counts as one that is away.
func TestListIsBoundedInTime(t *testing.T) {
	w := newWorld(t)
	tx, err := w.list.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), "LOCK TABLE todo"); err != nil {
		t.Fatal(err)
	}
	w.list.timeout = 50 * time.Millisecond
	for name, use := range map[string]func() error{
		"due": func() error {
			_, err := w.list.due(t.Context(), nil, time.Now(), nil, 1)
			return err
		},
		"failed":   func() error { return w.list.failed(t.Context(), itemKey{}, 1, time.Now(), "") },
		"backlogs": func() error { _, err := w.list.backlogs(t.Context()); return err },
	} {
		if err := use(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, want its own deadline", name, err)
		}
	}
}
