package eventstore

import (
	"context"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/serverfeatures"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
)

const (
	// serverVersion is the EventStoreDB whose behaviour is offered. Clients parse it: numbers only.
	serverVersion = "24.10.5"

	streamsService = "event_store.client.streams.streams"
)

// features tells clients what to expect. A client believes what is listed, so nothing is that would answer UNIMPLEMENTED.
type features struct {
	serverfeatures.UnimplementedServerFeaturesServer
}

var _ serverfeatures.ServerFeaturesServer = features{}

func (features) GetSupportedMethods(context.Context, *shared.Empty) (*serverfeatures.SupportedMethods, error) {
	return &serverfeatures.SupportedMethods{
		EventStoreServerVersion: serverVersion,
		Methods: []*serverfeatures.SupportedMethod{
			{ServiceName: streamsService, MethodName: "append"},
			{ServiceName: streamsService, MethodName: "read", Features: []string{"position", "events"}},
		},
	}, nil
}
