package eventstore_test

import (
	"slices"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"
)

func linkTo(target string) esdb.EventData {
	return esdb.EventData{EventID: uuid.New(), EventType: "$>", ContentType: esdb.ContentTypeBinary, Data: []byte(target)}
}

// resolved writes an event as "type@revision of the target, type@revision of the link", with a dash for what is absent.
func resolved(e *esdb.ResolvedEvent) string {
	name := func(r *esdb.RecordedEvent) string {
		if r == nil {
			return "-"
		}
		return r.EventType + "@" + string(rune('0'+r.EventNumber))
	}
	return name(e.Event) + ", " + name(e.Link)
}

func wantResolved(t *testing.T, what string, got []*esdb.ResolvedEvent, want []string) {
	t.Helper()
	var list []string
	for _, e := range got {
		list = append(list, resolved(e))
	}
	if !slices.Equal(list, want) {
		t.Errorf("%s: got %q, want %q", what, list, want)
	}
}

func TestConformanceLinks(t *testing.T) {
	c, cat := conformanceClient(t), category()
	target, cut, gone, links := cat+"-with@sign", cat+"-cut", cat+"-gone", cat+"-links"
	appendTo(t, c, target, esdb.NoStream{}, happened(3)...)
	appendTo(t, c, cut, esdb.NoStream{}, happened(3)...)
	setMetadata(t, c, cut, func(m *esdb.StreamMetadata) { m.SetTruncateBefore(2) })
	appendTo(t, c, gone, esdb.NoStream{}, happened(1)...)
	tombstoneStream(t, c, gone)
	appendTo(t, c, links, esdb.NoStream{},
		linkTo("2@"+target), linkTo("0@"+target), linkTo("9@"+target), linkTo("0@"+cat+"-never"),
		linkTo("1@"+cut), linkTo("2@"+cut), linkTo("0@"+gone), linkTo("0@"+links), happened(1)[0])
	want := []string{
		"Happened@2, $>@0", "Happened@0, $>@1", "-, $>@2", "-, $>@3",
		"-, $>@4", "Happened@2, $>@5", "-, $>@6", "$>@0, $>@7", "Happened@8, -",
	}

	wantResolved(t, "forwards", readStream(t, c, links, esdb.ReadStreamOptions{From: esdb.Start{}, ResolveLinkTos: true}, 20), want)
	back := readStream(t, c, links, esdb.ReadStreamOptions{Direction: esdb.Backwards, From: esdb.End{}, ResolveLinkTos: true}, 20)
	slices.Reverse(back)
	wantResolved(t, "backwards", back, want)
	sub, err := c.SubscribeToStream(testContext(t), links, esdb.SubscribeToStreamOptions{From: esdb.Start{}, ResolveLinkTos: true})
	wantResolved(t, "subscription", subscribed(t, sub, err).history(), want)
	all := subscribeAll(t, c, esdb.SubscribeToAllOptions{From: esdb.Start{}, Filter: prefix(links), ResolveLinkTos: true})
	wantResolved(t, "subscription to $all", all.history(), want)

	unresolved := readStream(t, c, links, esdb.ReadStreamOptions{From: esdb.Start{}}, 2)
	wantResolved(t, "not resolved", unresolved, []string{"$>@0, -", "$>@1, -"})
	first := unresolved[0].Event.Position
	wantResolved(t, "$all", readAll(t, c, esdb.ReadAllOptions{From: first, ResolveLinkTos: true}, 9), want)
	got := readStream(t, c, links, esdb.ReadStreamOptions{From: esdb.Start{}, ResolveLinkTos: true}, 3)
	if e := got[0]; e.Event.StreamID != target || e.Link.StreamID != links || *e.Commit != first.Commit {
		t.Errorf("got %s through %s at %d, want the position of the link", e.Event.StreamID, e.Link.StreamID, *e.Commit)
	}
}
