package saga

import (
	"slices"
	"testing"
	"time"
)

// What is under way or was done a moment ago is left alone; what has left the list is forgotten.
func TestItemsRest(t *testing.T) {
	l, now := newLane("inventory", inventorySteps), time.Now()
	items := map[string]task{}
	var listed []task
	for _, order := range []string{"new", "under way", "done", "done long ago", "failed", "interrupted", "gone"} {
		items[order] = item("RESERVE_STOCK", "mug")
		t := items[order]
		t.OrderID = order
		items[order] = t
		if order != "new" {
			l.begin(t.key())
		}
		if order != "gone" {
			listed = append(listed, t)
		}
	}
	l.settled(items["done"].key(), now)
	l.settled(items["gone"].key(), now)
	l.settled(items["done long ago"].key(), now.Add(-time.Hour))
	l.failed(items["failed"].key(), now.Add(time.Second))
	l.ended(items["interrupted"].key())

	awake := func(complete bool, now time.Time) []string {
		var orders []string
		for _, t := range l.awake(listed, complete, now) {
			orders = append(orders, t.OrderID)
		}
		return orders
	}
	if got, want := awake(false, now), []string{"new", "done long ago", "interrupted"}; !slices.Equal(got, want) {
		t.Errorf("awake are %v, want %v", got, want)
	}
	if n := l.resting(); n != 6 {
		t.Errorf("%d are remembered, want 6: the list may hold more", n)
	}
	if awake(true, now); l.resting() != 5 {
		t.Errorf("%d are remembered, want 5: one is gone", l.resting())
	}
	if got, want := awake(true, now.Add(time.Minute)), []string{"new", "done", "done long ago", "failed", "interrupted"}; !slices.Equal(got, want) {
		t.Errorf("later awake are %v, want %v", got, want)
	}
	listed = nil
	if awake(true, now); l.resting() != 1 {
		t.Errorf("%d are remembered of an empty list, want that which is under way", l.resting())
	}
}
