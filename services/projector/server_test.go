package projector

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog/memorylog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/postgres"
	"github.com/purserhq/purser/internal/readmodel"
	projectionv1 "github.com/purserhq/purser/proto/purser/projection/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// parkedOnly is models of which 120 keys are parked.
type parkedOnly struct{ models }

func (parkedOnly) Parked(_ context.Context, _ string, after consumer.ParkedKey, limit int) ([]consumer.ParkedKey, error) {
	var keys []consumer.ParkedKey
	for i := range 120 {
		if k := fmt.Sprintf("k%03d", i); k > after.Key && len(keys) < limit {
			keys = append(keys, consumer.ParkedKey{Model: "m", Key: k, Position: 7, Cause: "c", ParkedAt: noon})
		}
	}
	return keys, nil
}

func TestParkedKeysComeInPages(t *testing.T) {
	s := &server{models: parkedOnly{}}
	req := &projectionv1.ListParkedKeysRequest{Projection: "m"}
	var sizes []int
	for {
		reply, err := s.ListParkedKeys(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		first := fmt.Sprintf("k%03d", 50*len(sizes))
		want := &projectionv1.ParkedKey{Projection: "m", Key: first, Position: 7, Cause: "c", ParkTime: timestamppb.New(noon)}
		if got := reply.GetParkedKeys()[0]; !proto.Equal(got, want) {
			t.Errorf("got %s, want %s", prototext.Format(got), prototext.Format(want))
		}
		sizes = append(sizes, len(reply.GetParkedKeys()))
		if req.PageToken = reply.GetNextPageToken(); req.PageToken == "" {
			break
		}
		for _, other := range []*projectionv1.ListParkedKeysRequest{{PageToken: req.PageToken}, {PageToken: "zzz"}, {PageToken: "e30!"}} {
			if _, err := s.ListParkedKeys(t.Context(), other); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_INVALID_FIELD) {
				t.Errorf("%v: %v", other, err)
			}
		}
	}
	if !slices.Equal(sizes, []int{50, 50, 20}) {
		t.Errorf("pages of %v", sizes)
	}
	if reply, err := s.ListParkedKeys(t.Context(), &projectionv1.ListParkedKeysRequest{PageSize: 5000}); err != nil || len(reply.GetParkedKeys()) != 120 || reply.GetNextPageToken() != "" {
		t.Errorf("of a large page: %v, %v", reply, err)
	}
}

// oneBuild is models of which there is one build.
type oneBuild struct {
	models
	build   consumer.BuildStatus
	dropped bool
}

func (m *oneBuild) Build(context.Context, string, string) (consumer.BuildStatus, error) {
	return m.build, nil
}

func (m *oneBuild) DropBuild(context.Context, string) error { m.dropped = true; return nil }

func TestABuildThatIsBeingFilledIsDroppedByForceOnly(t *testing.T) {
	filling := consumer.BuildStatus{Name: "m_v1_b2", Events: 5}
	for _, c := range []struct {
		build  consumer.BuildStatus
		force  bool
		reason typev1.ErrorReason // 0: it is dropped
	}{
		{filling, false, typev1.ErrorReason_ERROR_REASON_BUILD_NOT_FILLED},
		{filling, true, 0},
		{consumer.BuildStatus{Filled: true}, false, 0},
		{consumer.BuildStatus{Dropping: true}, false, 0}, // an interrupted drop is asked for again
	} {
		m := &oneBuild{build: c.build}
		_, err := (&server{models: m}).DropBuild(t.Context(), &projectionv1.DropBuildRequest{Build: "m_v1_b2", Force: c.force})
		if m.dropped != (c.reason == 0) || (err == nil) != m.dropped || err != nil && !fault.Is(err, c.reason) {
			t.Errorf("%+v, force %t: dropped %t, %v", c.build, c.force, m.dropped, err)
		}
	}
}

func TestProjection(t *testing.T) {
	got := projection(consumer.Status{
		Name: "orders", Build: "orders_v2_b1", Version: 2, Categories: []string{"order"}, Derived: []string{"sales"}, State: consumer.Paused,
		PausedAt: noon, Position: 7, Head: 9, Lag: time.Second, Parked: 3, OldestParked: noon.Add(time.Hour),
		Builds: []consumer.BuildStatus{{
			Name: "orders_v2_b1", Version: 2, Number: 1, Filled: true, Live: true, CreatedAt: noon, Position: 7, Events: 5, Processes: 2, Partitions: 16, Parked: 3,
		}},
	})
	want := &projectionv1.Projection{
		Name: "orders", Version: 2, Build: "orders_v2_b1", Categories: []string{"order"}, Derived: []string{"sales"},
		State: projectionv1.ProjectionState_PROJECTION_STATE_PAUSED, PauseTime: timestamppb.New(noon), Position: 7, HeadPosition: 9,
		Lag: durationpb.New(time.Second), ParkedKeys: 3, OldestParkedTime: timestamppb.New(noon.Add(time.Hour)),
		Builds: []*projectionv1.Build{{
			Name: "orders_v2_b1", Version: 2, State: projectionv1.BuildState_BUILD_STATE_LIVE, CreateTime: timestamppb.New(noon), Position: 7, Events: 5,
			Processes: 2, Partitions: 16, ParkedKeys: 3,
		}},
	}
	if !proto.Equal(got, want) {
		t.Errorf("got %s, want %s", prototext.Format(got), prototext.Format(want))
	}
	for _, c := range []struct {
		build consumer.BuildStatus
		state projectionv1.BuildState
	}{
		{consumer.BuildStatus{}, projectionv1.BuildState_BUILD_STATE_FILLING},
		{consumer.BuildStatus{Filled: true}, projectionv1.BuildState_BUILD_STATE_KEPT},
		{consumer.BuildStatus{Filled: true, Live: true}, projectionv1.BuildState_BUILD_STATE_LIVE},
		{consumer.BuildStatus{Filled: true, Dropping: true}, projectionv1.BuildState_BUILD_STATE_DROPPING},
	} {
		if got := buildState(c.build); got != c.state {
			t.Errorf("%+v: %v", c.build, got)
		}
	}
	if got, want := progress(consumer.Progress{Build: "b", Phase: consumer.Indexing, Events: 3, Total: 9, PerSecond: 1.5, Left: 4 * time.Second}),
		(&projectionv1.RebuildProjectionResponse{
			Build: "b", Phase: projectionv1.RebuildPhase_REBUILD_PHASE_INDEXING, EventsDone: 3, EventsTotal: 9, EventsPerSecond: 1, TimeLeft: durationpb.New(4 * time.Second),
		}); !proto.Equal(got, want) {
		t.Errorf("got %s, want %s", prototext.Format(got), prototext.Format(want))
	}
	for state, name := range map[consumer.State]string{
		consumer.Live: "PROJECTION_STATE_LIVE", consumer.CatchingUp: "PROJECTION_STATE_CATCHING_UP", consumer.Stopped: "PROJECTION_STATE_STOPPED",
	} {
		if got := projection(consumer.Status{State: state}); got.GetState().String() != name || got.GetPauseTime() != nil || got.GetOldestParkedTime() != nil {
			t.Errorf("%v, want %s", got, name)
		}
	}
}

func TestWithoutPostgresTheReasonIsThat(t *testing.T) {
	pool, err := postgres.Open("postgres://purser:wrong@127.0.0.1:1/purser", "projector", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	c := consumer.New(pool, memorylog.New(eventschema.New()), "projector", eventschema.Categories(), readmodel.Models(),
		slog.New(slog.DiscardHandler), consumer.NewMetrics(prometheus.NewRegistry()))
	const want = "no connection to Postgres at 127.0.0.1:1: connection refused"
	if err := ready(t.Context(), c, pool); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
