package saga

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/domain/fulfillment"
	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/origin"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	// attemptTimeout bounds one attempt: the call, and the recording of its answer.
	attemptTimeout = 15 * time.Second
	// listTimeout bounds each statement on the list: a database that hangs is one that is away.
	listTimeout = 5 * time.Second
	// measureInterval is how often the length of the list is measured.
	measureInterval = 5 * time.Second
)

// executor works the to-do list off.
type executor struct {
	list    list
	steps   steps
	answers *aggregate.Handler[fulfillment.Answers]
	// level are the partitions that are ours and whose list has caught up with the log, so that nothing acts on the past.
	level   func() []int
	changed <-chan struct{} // the list may have changed
	clock   func() time.Time
	log     *slog.Logger
	metrics *metrics
	lanes   []*lane
}

// run works until ctx ends, and returns once everything under way has come to its end.
func (e *executor) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range e.lanes {
		g.Go(func() error { return e.work(ctx, l) })
	}
	g.Go(func() error { return e.wakeAll(ctx) })
	g.Go(func() error { return e.measure(ctx) })
	return g.Wait()
}

func (e *executor) wakeAll(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.changed:
			for _, l := range e.lanes {
				l.wakeUp()
			}
		}
	}
}

func (e *executor) measure(ctx context.Context) error {
	tick := time.NewTicker(measureInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if b, err := e.list.backlogs(ctx, e.level()); err == nil { // if not, the lanes say so
				e.metrics.measured(b, e.clock())
			}
		}
	}
}

// attempt carries a task out, once, and says what came of it: [outcomeDone] where everything that the reply says is on
// record; else why it has to be tried again.
//
// If the process dies anywhere here, the item is still on the list, and is done again under the same request id.
func (e *executor) attempt(ctx context.Context, t task, read time.Time) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	ctx = origin.With(ctx, origin.Origin{
		Actor: origin.Saga, CorrelationID: t.CorrelationID, CausationID: t.CausationID, Traceparent: t.Traceparent,
	})
	req, err := request(t, read)
	if err != nil {
		return outcomeFailed, err
	}
	outcome := outcomeDone
	a, err := e.steps.call(ctx, t, req)
	if reason, ok := refusal(err); ok && (t.Attempts >= maxOvertaken || !overtaken(err)) {
		e.log.WarnContext(ctx, "a step was refused", "order", t.OrderID, "step", t.Step, "product", t.ProductID, "reason", reason)
		outcome, a, err = outcomeRefused, stepRefused(t, reason), nil
	}
	if err == nil && a.decide != nil {
		_, err = e.answers.Handle(ctx, t.OrderID, a.command(req), a.decide)
	}
	if err != nil {
		return outcomeFailed, err
	}
	return outcome, nil
}

// refusal is the reason of an error that no further attempt would cure. Everything else is tried again.
func refusal(err error) (string, bool) {
	f := fault.Of(err)
	if f == nil || mistimed(f) {
		return "", false
	}
	switch f.Kind {
	case fault.Invalid, fault.NotFound, fault.Exists, fault.Precondition:
		return strings.TrimPrefix(f.Reason.String(), "ERROR_REASON_"), true
	}
	return "", false
}

// mistimed tells that an attempt came too late, or from a clock that is ahead: the next one is valid until another time.
func mistimed(f *fault.Fault) bool {
	return f.Reason == typev1.ErrorReason_ERROR_REASON_ATTEMPT_EXPIRED ||
		slices.ContainsFunc(f.Fields, func(field fault.Field) bool { return field.Path == "valid_until" })
}

// maxOvertaken is how often a step is tried that may have been overtaken, before it counts as refused.
const maxOvertaken = 5

// overtaken tells a refusal by the mark of an undo. Usually the order was cancelled while the step was on its way: then it
// leaves the list as soon as that is folded, and nobody need look at it.
func overtaken(err error) bool {
	return fault.Is(err, typev1.ErrorReason_ERROR_REASON_RESERVATION_ENDED) || fault.Is(err, typev1.ErrorReason_ERROR_REASON_PAYMENT_VOIDED)
}

// cause is what may be noted of an error: a fault's text, which is fit to be read by anyone.
func cause(err error) string {
	switch f := fault.Of(err); {
	case f != nil:
		return f.Message
	case errors.Is(err, errStillUnknown), errors.Is(err, errNoMeaning):
		return err.Error()
	default:
		return "the service could not be reached, or failed"
	}
}
