package eventstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/purserhq/purser/services/eventstore/storage"
)

const usersStream = "$users"

// createUsers writes the streams of the users that every EventStoreDB has, since scripts wait for them to see that it is
// ready. The users have no passwords: nobody is asked for one.
func createUsers(store *storage.Store) error {
	last, err := store.LastRevision(usersStream)
	var deleted *storage.DeletedError
	if errors.As(err, &deleted) || err == nil && last != storage.NoRevision {
		return nil
	}
	if err != nil {
		return fmt.Errorf("create the users: %w", err)
	}
	var list []storage.Proposed
	for _, u := range []struct{ login, name, group string }{
		{"admin", "Event Store Administrator", "$admins"},
		{"ops", "Event Store Operations", "$ops"},
	} {
		created := storage.Proposed{ID: storage.ID(uuid.New()), Type: "$UserCreated", JSON: true,
			Data: fmt.Appendf(nil, `{"loginName":%q,"fullName":%q,"groups":[%q],"disabled":false}`, u.login, u.name, u.group)}
		if err := createStream(store, "$user-"+u.login, created); err != nil {
			return err
		}
		list = append(list, storage.Proposed{ID: storage.ID(uuid.New()), Type: "$User", Data: []byte(u.login)})
	}
	return createStream(store, usersStream, list...) // last, as it is what says that all are there
}

// createStream writes a new stream; one that is there already, or was, is left as it is.
func createStream(store *storage.Store, stream string, events ...storage.Proposed) error {
	_, err := store.Append(context.Background(), stream, storage.NoStream, events)
	var conflict *storage.ConflictError
	var deleted *storage.DeletedError
	if err != nil && !errors.As(err, &conflict) && !errors.As(err, &deleted) {
		return fmt.Errorf("create the users: %w", err)
	}
	return nil
}
