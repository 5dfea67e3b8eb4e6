package consumer

import (
	"context"

	"github.com/purserhq/purser/internal/eventlog"
)

// ErrPoison is in the chain of the error of an event that can't be read, or that a fold can't get past.
var ErrPoison = errPoison

// At folds the row of a key as it was when the log had come to a position, by the same function that heals it. It fails
// with [ErrPoison], or as the log does.
func (f *Fold[R]) At(ctx context.Context, log History, key string, position eventlog.Position) (R, error) {
	shape := f.Model().shape.(*folding[R])
	k, err := shape.refold(ctx, log, key, position)
	if err != nil {
		var none R
		return none, err
	}
	return k.row, nil
}
