package eventstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"
)

// What a stream of the events 0 to 5 shows under metadata, from either end and to a subscription.
func TestConformanceWindows(t *testing.T) {
	c := conformanceClient(t)
	for _, tt := range []struct {
		metadata string
		want     []uint64
	}{
		{`{"$maxCount":2}`, []uint64{4, 5}},
		{`{"$maxCount":100}`, []uint64{0, 1, 2, 3, 4, 5}},
		{`{"$tb":4}`, []uint64{4, 5}},
		{`{"$tb":6}`, nil},
		{`{"$tb":60}`, nil},
		{`{"$maxCount":4,"$tb":3,"mine":true}`, []uint64{3, 4, 5}},
		{`{"$maxCount":1,"$tb":3}`, []uint64{5}},
		{`{"$maxAge":3600}`, []uint64{0, 1, 2, 3, 4, 5}},
		{`{"$maxCount":0,"$maxAge":-1}`, []uint64{0, 1, 2, 3, 4, 5}},
	} {
		t.Run(tt.metadata, func(t *testing.T) {
			stream := newStream()
			appendTo(t, c, stream, esdb.NoStream{}, happened(6)...)
			appendTo(t, c, "$$"+stream, esdb.NoStream{}, metadataEvent(tt.metadata))
			wantWindow(t, c, stream, tt.want)
			// The last revision counts, whether it is shown or not.
			_, err := c.AppendToStream(testContext(t), stream, esdb.AppendToStreamOptions{ExpectedRevision: esdb.Revision(4)}, happened(1)...)
			wantCode(t, err, esdb.ErrorCodeWrongExpectedVersion)
			appendTo(t, c, stream, esdb.Revision(5))
		})
	}
}

func metadataEvent(json string) esdb.EventData {
	return esdb.EventData{
		EventID: uuid.New(), EventType: "$metadata", ContentType: esdb.ContentTypeJson, Data: []byte(json),
	}
}

func wantWindow(t *testing.T, c *esdb.Client, stream string, want []uint64) {
	t.Helper()
	wantRevisions(t, readStream(t, c, stream, esdb.ReadStreamOptions{From: esdb.Start{}}, 10), want...)
	wantRevisions(t, subscribeStream(t, c, stream, esdb.Start{}).history(), want...)
	back := readStream(t, c, stream, esdb.ReadStreamOptions{Direction: esdb.Backwards, From: esdb.End{}}, 10)
	var reversed []uint64
	for i := range want {
		reversed = append(reversed, want[len(want)-1-i])
	}
	wantRevisions(t, back, reversed...)
	if len(want) > 0 && want[0] > 0 {
		before := esdb.ReadStreamOptions{Direction: esdb.Backwards, From: esdb.Revision(want[0] - 1)}
		wantRevisions(t, readStream(t, c, stream, before, 10))
	}
}

// A window moves with what is appended, also for a subscription that was there before.
func TestConformanceMovingWindow(t *testing.T) {
	c, stream := conformanceClient(t), newStream()
	setMetadata(t, c, stream, func(m *esdb.StreamMetadata) { m.SetMaxCount(3) })
	live := subscribeStream(t, c, stream, esdb.Start{})
	wantRevisions(t, live.history())
	for r := range uint64(8) {
		appendTo(t, c, stream, esdb.Any{}, happened(1)...)
		if e := live.event(); e.EventNumber != r {
			t.Fatalf("got revision %d, want %d", e.EventNumber, r)
		}
		want := []uint64{r}
		for len(want) < 3 && want[0] > 0 {
			want = append([]uint64{want[0] - 1}, want...)
		}
		wantWindow(t, c, stream, want)
	}
	// A checkpoint that is no longer shown is as good as any.
	wantRevisions(t, subscribeStream(t, c, stream, esdb.Revision(1)).history(), 5, 6, 7)
}

func TestConformanceMaxAge(t *testing.T) {
	c, stream := conformanceClient(t), newStream()
	appendTo(t, c, stream, esdb.NoStream{}, happened(2)...)
	setMetadata(t, c, stream, func(m *esdb.StreamMetadata) { m.SetMaxAge(time.Second) })
	ctx := testContext(t)
	for len(readStream(t, c, stream, esdb.ReadStreamOptions{From: esdb.Start{}}, 10)) > 0 {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("nothing expires")
		}
	}
	if res := appendTo(t, c, stream, esdb.Revision(1), happened(1)...); res.NextExpectedVersion != 2 {
		t.Errorf("appended at revision %d, want 2", res.NextExpectedVersion)
	}
	setMetadata(t, c, stream, func(m *esdb.StreamMetadata) { m.SetMaxAge(time.Hour) })
	got := readStream(t, c, stream, esdb.ReadStreamOptions{Direction: esdb.Backwards, From: esdb.End{}}, 1)
	wantRevisions(t, got, 2)
}

// Of a stream's metadata, only the last is shown.
func TestConformanceMetadataStream(t *testing.T) {
	c, stream := conformanceClient(t), newStream()
	for i := range 4 {
		appendTo(t, c, "$$"+stream, esdb.Any{}, metadataEvent(fmt.Sprintf(`{"n":%d}`, i)))
	}
	wantMetadata(t, c, stream, `{"n":3}`)
	wantWindow(t, c, "$$"+stream, []uint64{3})
	if res := appendTo(t, c, "$$"+stream, esdb.Revision(3), metadataEvent(`{}`)); res.NextExpectedVersion != 4 {
		t.Errorf("appended at revision %d, want 4", res.NextExpectedVersion)
	}
}

// What is no JSON object describes nothing.
func TestConformanceInvalidMetadata(t *testing.T) {
	c := conformanceClient(t)
	binary := metadataEvent(`{"$maxCount":1}`)
	binary.ContentType = esdb.ContentTypeBinary
	for name, e := range map[string]esdb.EventData{
		"not JSON by its type": binary,
		"not JSON":             metadataEvent(`{"$maxCount":1`),
		"not an object":        metadataEvent(`[1]`),
		"not a number":         metadataEvent(`{"$tb":2,"$maxCount":"1"}`),
	} {
		t.Run(name, func(t *testing.T) {
			stream := newStream()
			appendTo(t, c, stream, esdb.NoStream{}, happened(3)...)
			appendTo(t, c, "$$"+stream, esdb.NoStream{}, e)
			wantWindow(t, c, stream, []uint64{0, 1, 2})
		})
	}
}
