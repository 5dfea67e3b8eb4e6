package aggregate

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/domain/stock"
	"github.com/purserhq/purser/internal/eventlog"
	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
)

// Of a long stream, requests are remembered for a window of the events' own time, and so many of either kind.
func TestRequestsAreForgotten(t *testing.T) {
	const day = 24 * time.Hour
	type noted struct {
		id    string
		keyed bool
		at    time.Duration
	}
	for name, c := range map[string]struct {
		long  *Long
		noted []noted
		plain []string // that are remembered in the end
		keyed []string
	}{
		"never, of a short stream": {nil, []noted{{"a", false, 0}, {"b", true, 0}, {"c", false, 1000 * day}}, []string{"a", "b", "c"}, nil},
		"too many":                 {&Long{Window: day, Requests: 2, KeyedRequests: 2}, []noted{{"a", false, 0}, {"b", false, 1}, {"c", false, 2}}, []string{"b", "c"}, nil},
		"too many of one kind": {
			&Long{Window: day, Requests: 2, KeyedRequests: 1},
			[]noted{{"a", false, 0}, {"k", true, 1}, {"l", true, 2}, {"b", false, 3}, {"m", true, 4}},
			[]string{"a", "b"}, []string{"m"},
		},
		"at the end of the window": {&Long{Window: day, Requests: 9}, []noted{{"a", false, 0}, {"b", false, day}}, []string{"a", "b"}, nil},
		"too old":                  {&Long{Window: day, Requests: 9}, []noted{{"a", false, 0}, {"b", false, 1}, {"c", false, day + 1}}, []string{"b", "c"}, nil},
		"too old, by its own kind": {&Long{Window: day, Requests: 9, KeyedRequests: 9}, []noted{{"a", false, 0}, {"k", true, 2 * day}}, []string{"a"}, []string{"k"}},
		"by a clock that is behind": {
			&Long{Window: day, Requests: 9}, []noted{{"a", false, 2 * day}, {"b", false, 0}, {"c", false, 3 * day}},
			[]string{"a", "b", "c"}, nil, // b is forgotten with a, in the order of the log
		},
		"not at all": {&Long{Window: day}, []noted{{"a", false, 0}, {"k", true, 0}}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if c.long != nil {
				c.long.Keyed = stock.OfReservation
			}
			rs := newRequests(c.long)
			for i, n := range c.noted {
				m := proto.Message(&stockevent.StockReceived{})
				if n.keyed {
					m = &stockevent.StockReserved{}
				}
				rs.remember(n.id, "hash", eventlog.Revision(i), []proto.Message{m}, time.Unix(0, 0).Add(n.at))
			}
			for id, r := range rs.byID {
				if !slices.Contains(slices.Concat(c.plain, c.keyed), id) || r.ID != id || r.Hash != "hash" || r.Revisions[0] != eventlog.Revision(slices.IndexFunc(c.noted, func(n noted) bool { return n.id == id })) {
					t.Errorf("%s is remembered as %+v", id, r)
				}
			}
			if len(rs.byID) != len(c.plain)+len(c.keyed) {
				t.Errorf("%d are remembered, want %v and %v", len(rs.byID), c.plain, c.keyed)
			}
			if c.long != nil && (!slices.Equal(ids(rs.plain), c.plain) || !slices.Equal(ids(rs.keyed), c.keyed)) {
				t.Errorf("in order: %v and %v, want %v and %v", ids(rs.plain), ids(rs.keyed), c.plain, c.keyed)
			}
		})
	}
}

func ids(rs []*request) (out []string) {
	for _, r := range rs {
		out = append(out, r.ID)
	}
	return out
}

func TestARequestIsAllItsEvents(t *testing.T) {
	rs := newRequests(&Long{Window: time.Hour, Requests: 1, KeyedRequests: 1, Keyed: stock.OfReservation})
	reserved, received := &stockevent.StockReserved{}, &stockevent.StockReceived{}
	at := time.Unix(0, 0)
	rs.remember("", "", 0, []proto.Message{received}, at) // by no command
	rs.remember("a", "h", 1, []proto.Message{reserved, received}, at)
	rs.remember("k", "h", 2, []proto.Message{reserved}, at)
	rs.remember("a", "h", 4, []proto.Message{reserved}, at)
	if len(rs.all()) != 2 || rs.all()[0].ID != "a" || rs.all()[1].ID != "k" {
		t.Errorf("remembered %v", ids(rs.all()))
	}
	if a := rs.byID["a"]; a == nil || a.Keyed || !slices.Equal(a.Revisions, []eventlog.Revision{1, 4}) {
		t.Errorf("%+v", a)
	}
}
