package projector

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/fault"
	projectionv1 "github.com/purserhq/purser/proto/purser/projection/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	defaultPageSize = 50
	maxPageSize     = 1000
)

// models are the read models as an operator sees them.
type models interface {
	Statuses(ctx context.Context) ([]consumer.Status, error)
	Status(ctx context.Context, model string) (consumer.Status, error)
	Build(ctx context.Context, model, name string) (consumer.BuildStatus, error)
	Pause(ctx context.Context, model string) (consumer.Status, error)
	Resume(ctx context.Context, model string) (consumer.Status, error)
	Parked(ctx context.Context, model string, after consumer.ParkedKey, limit int) ([]consumer.ParkedKey, error)
	Unpark(ctx context.Context, model, key string) error
	Rebuild(ctx context.Context, model string, stay bool, tell func(consumer.Progress) error) error
	Switch(ctx context.Context, model, to string) (consumer.Status, error)
	DropBuild(ctx context.Context, build string) error
}

var _ models = (*consumer.Consumer)(nil)

type server struct {
	projectionv1.UnimplementedProjectionServiceServer
	models models
}

func (s *server) ListProjections(ctx context.Context, _ *projectionv1.ListProjectionsRequest) (*projectionv1.ListProjectionsResponse, error) {
	all, err := s.models.Statuses(ctx)
	if err != nil {
		return nil, err
	}
	reply := &projectionv1.ListProjectionsResponse{}
	for _, p := range all {
		reply.Projections = append(reply.Projections, projection(p))
	}
	return reply, nil
}

func (s *server) GetProjection(ctx context.Context, req *projectionv1.GetProjectionRequest) (*projectionv1.GetProjectionResponse, error) {
	p, err := s.models.Status(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	return &projectionv1.GetProjectionResponse{Projection: projection(p)}, nil
}

func (s *server) PauseProjection(ctx context.Context, req *projectionv1.PauseProjectionRequest) (*projectionv1.PauseProjectionResponse, error) {
	p, err := s.models.Pause(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	return &projectionv1.PauseProjectionResponse{Projection: projection(p)}, nil
}

func (s *server) ResumeProjection(ctx context.Context, req *projectionv1.ResumeProjectionRequest) (*projectionv1.ResumeProjectionResponse, error) {
	p, err := s.models.Resume(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	return &projectionv1.ResumeProjectionResponse{Projection: projection(p)}, nil
}

func (s *server) RebuildProjection(req *projectionv1.RebuildProjectionRequest, stream grpc.ServerStreamingServer[projectionv1.RebuildProjectionResponse]) error {
	return s.models.Rebuild(stream.Context(), req.GetName(), req.GetNoSwitch(), func(p consumer.Progress) error {
		return stream.Send(progress(p))
	})
}

func (s *server) SwitchProjection(ctx context.Context, req *projectionv1.SwitchProjectionRequest) (*projectionv1.SwitchProjectionResponse, error) {
	if b := req.GetBuild(); b != "" {
		if _, err := s.models.Build(ctx, req.GetName(), b); err != nil {
			return nil, err
		}
	}
	p, err := s.models.Switch(ctx, req.GetName(), req.GetBuild())
	if err != nil {
		return nil, err
	}
	return &projectionv1.SwitchProjectionResponse{Projection: projection(p)}, nil
}

func (s *server) DropBuild(ctx context.Context, req *projectionv1.DropBuildRequest) (*projectionv1.DropBuildResponse, error) {
	b, err := s.models.Build(ctx, "", req.GetBuild())
	if err != nil {
		return nil, err
	}
	if buildState(b) == projectionv1.BuildState_BUILD_STATE_FILLING && !req.GetForce() {
		return nil, fault.Refused(typev1.ErrorReason_ERROR_REASON_BUILD_NOT_FILLED,
			"build %q is still being filled, %d events so far, which would have to be done anew; it is dropped all the same with force", b.Name, b.Events)
	}
	if err := s.models.DropBuild(ctx, req.GetBuild()); err != nil {
		return nil, err
	}
	return &projectionv1.DropBuildResponse{}, nil
}

func (s *server) ListParkedKeys(ctx context.Context, req *projectionv1.ListParkedKeysRequest) (*projectionv1.ListParkedKeysResponse, error) {
	after, err := parseToken(req.GetPageToken(), req.GetProjection())
	if err != nil {
		return nil, err
	}
	limit := min(int(req.GetPageSize()), maxPageSize)
	if limit == 0 {
		limit = defaultPageSize
	}
	keys, err := s.models.Parked(ctx, req.GetProjection(), after, limit+1)
	if err != nil {
		return nil, err
	}
	reply := &projectionv1.ListParkedKeysResponse{}
	if len(keys) > limit {
		keys = keys[:limit]
		last := keys[limit-1]
		if reply.NextPageToken, err = newToken(req.GetProjection(), last); err != nil {
			return nil, err
		}
	}
	for _, k := range keys {
		reply.ParkedKeys = append(reply.ParkedKeys, &projectionv1.ParkedKey{
			Projection: k.Model, Key: k.Key, Position: int64(k.Position), Cause: k.Cause, ParkTime: timestamppb.New(k.ParkedAt),
		})
	}
	return reply, nil
}

func (s *server) UnparkKey(ctx context.Context, req *projectionv1.UnparkKeyRequest) (*projectionv1.UnparkKeyResponse, error) {
	if err := s.models.Unpark(ctx, req.GetProjection(), req.GetKey()); err != nil {
		return nil, err
	}
	return &projectionv1.UnparkKeyResponse{Unparked: true}, nil
}

var states = map[consumer.State]projectionv1.ProjectionState{
	consumer.Live:       projectionv1.ProjectionState_PROJECTION_STATE_LIVE,
	consumer.CatchingUp: projectionv1.ProjectionState_PROJECTION_STATE_CATCHING_UP,
	consumer.Paused:     projectionv1.ProjectionState_PROJECTION_STATE_PAUSED,
	consumer.Stopped:    projectionv1.ProjectionState_PROJECTION_STATE_STOPPED,
}

func projection(s consumer.Status) *projectionv1.Projection {
	builds := make([]*projectionv1.Build, len(s.Builds))
	for i, b := range s.Builds {
		builds[i] = &projectionv1.Build{
			Name: b.Name, Version: int32(b.Version), State: buildState(b), CreateTime: timestamp(b.CreatedAt), Position: int64(b.Position),
			Events: b.Events, Processes: int32(b.Processes), Partitions: int32(b.Partitions), ParkedKeys: int32(b.Parked),
		}
	}
	return &projectionv1.Projection{
		Builds: builds,
		Name:   s.Name, Version: int32(s.Version), Build: s.Build, Categories: s.Categories, Derived: s.Derived,
		State: states[s.State], PauseTime: timestamp(s.PausedAt),
		Position: int64(s.Position), HeadPosition: int64(s.Head), Lag: durationpb.New(s.Lag),
		ParkedKeys: int32(s.Parked), OldestParkedTime: timestamp(s.OldestParked),
	}
}

func buildState(b consumer.BuildStatus) projectionv1.BuildState {
	switch {
	case b.Dropping:
		return projectionv1.BuildState_BUILD_STATE_DROPPING
	case b.Live:
		return projectionv1.BuildState_BUILD_STATE_LIVE
	case b.Filled:
		return projectionv1.BuildState_BUILD_STATE_KEPT
	}
	return projectionv1.BuildState_BUILD_STATE_FILLING
}

var phases = map[consumer.Phase]projectionv1.RebuildPhase{
	consumer.Filling:   projectionv1.RebuildPhase_REBUILD_PHASE_FILLING,
	consumer.Indexing:  projectionv1.RebuildPhase_REBUILD_PHASE_INDEXING,
	consumer.Verifying: projectionv1.RebuildPhase_REBUILD_PHASE_VERIFYING,
	consumer.Done:      projectionv1.RebuildPhase_REBUILD_PHASE_DONE,
}

func progress(p consumer.Progress) *projectionv1.RebuildProjectionResponse {
	r := &projectionv1.RebuildProjectionResponse{
		Build: p.Build, Phase: phases[p.Phase], EventsDone: p.Events, EventsTotal: p.Total, EventsPerSecond: int64(p.PerSecond),
	}
	if p.Left > 0 {
		r.TimeLeft = durationpb.New(p.Left)
	}
	return r
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// token is where a page of parked keys ends, and of which list. It leads to nothing that its holder could not ask for, so
// it is not signed.
type token struct {
	Of    string // the projection that was asked for
	Model string
	Key   string
}

func newToken(of string, last consumer.ParkedKey) (string, error) {
	b, err := json.Marshal(token{of, last.Model, last.Key})
	return base64.RawURLEncoding.EncodeToString(b), err
}

func parseToken(text, of string) (after consumer.ParkedKey, err error) {
	if text == "" {
		return after, nil
	}
	var t token
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil || t.Of != of {
		return after, fault.InvalidField("page_token", "is not one that the page before came with, or the projection is not the same")
	}
	return consumer.ParkedKey{Model: t.Model, Key: t.Key}, nil
}
