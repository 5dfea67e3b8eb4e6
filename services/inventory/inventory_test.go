package inventory

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/domain/catalog"
	"github.com/purserhq/purser/internal/domain/stock"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/origin"
	"github.com/purserhq/purser/internal/secret"
	catalogevent "github.com/purserhq/purser/proto/purser/catalog/event/v1"
	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// newServer is the service at noon, on a log in which there is a mug.
func newServer(t *testing.T) (*server, *eventlog.Log) {
	t.Helper()
	log := newLog(t)
	s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.Append(t.Context(), "product-mug", eventlog.NoStream, []eventlog.NewEvent{{
		ID: uuid.New(), Message: &catalogevent.ProductCreated{ProductId: "mug", Name: "Mug"},
	}}); err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return noon }
	return &server{
		stock:    aggregate.New[stock.State](log, eventschema.Stock, s, clock),
		products: aggregate.New[catalog.State](log, eventschema.Product, s, clock),
		clock:    clock,
	}, log
}

func stocked(t *testing.T, quantity int64) (*server, *eventlog.Log) {
	t.Helper()
	s, log := newServer(t)
	if _, err := s.ReceiveStock(t.Context(), &inventoryv1.ReceiveStockRequest{RequestId: uuid.NewString(), ProductId: "mug", Quantity: quantity}); err != nil {
		t.Fatal(err)
	}
	return s, log
}

func reservation(order string, quantity int64) *inventoryv1.ReserveStockRequest {
	return &inventoryv1.ReserveStockRequest{RequestId: uuid.NewString(), ProductId: "mug", OrderId: order, Quantity: quantity}
}

func release(order string) *inventoryv1.ReleaseReservationRequest {
	return &inventoryv1.ReleaseReservationRequest{RequestId: uuid.NewString(), ProductId: "mug", OrderId: order}
}

func commit(order string) *inventoryv1.CommitReservationRequest {
	return &inventoryv1.CommitReservationRequest{RequestId: uuid.NewString(), ProductId: "mug", OrderId: order}
}

func lastEvent(t *testing.T, log *eventlog.Log) proto.Message {
	t.Helper()
	all, err := log.Read(t.Context(), "stock-mug", 0, 0)
	if err != nil || len(all) == 0 {
		t.Fatalf("%v, %v", all, err)
	}
	e, err := log.Decode(all[len(all)-1])
	if err != nil {
		t.Fatal(err)
	}
	return e.Messages[0]
}

func TestReserveReplies(t *testing.T) {
	s, _ := stocked(t, 5)
	held := reservation("7", 3)
	want := func(req *inventoryv1.ReserveStockRequest, outcome inventoryv1.ReservationOutcome, available int64, etag string) *inventoryv1.ReserveStockResponse {
		t.Helper()
		reply, err := s.ReserveStock(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if reply.GetConsistencyToken() == "" {
			t.Error("no consistency token")
		}
		if w := (&inventoryv1.ReserveStockResponse{
			ProductId: "mug", OrderId: req.GetOrderId(), Outcome: outcome, Requested: req.GetQuantity(), Available: available,
			Etag: etag, ConsistencyToken: reply.GetConsistencyToken(),
		}); !proto.Equal(reply, w) {
			t.Errorf("replied %v, want %v", reply, w)
		}
		return reply
	}
	const (
		reserved = inventoryv1.ReservationOutcome_RESERVATION_OUTCOME_RESERVED
		rejected = inventoryv1.ReservationOutcome_RESERVATION_OUTCOME_REJECTED
	)
	want(held, reserved, 0, `"1"`)
	want(reservation("7", 3), reserved, 0, `"1"`) // by another request: it is held already
	tooMuch := reservation("8", 3)
	want(tooMuch, rejected, 2, `"2"`)
	if _, err := s.ReleaseReservation(t.Context(), release("7")); err != nil {
		t.Fatal(err)
	}
	// Both are answered as they were then, though there is enough now, and though what was held is not any more.
	want(tooMuch, rejected, 2, `"2"`)
	want(held, reserved, 0, `"1"`)
	want(reservation("8", 3), reserved, 0, `"4"`) // a new request is a new decision
}

func TestReserveRefuses(t *testing.T) {
	s, log := stocked(t, 5)
	for _, req := range []*inventoryv1.ReserveStockRequest{reservation("held", 2), reservation("ended", 1)} {
		if _, err := s.ReserveStock(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	for _, order := range []string{"ended", "never"} {
		if _, err := s.ReleaseReservation(t.Context(), release(order)); err != nil {
			t.Fatal(err)
		}
	}
	before := lastEvent(t, log)
	until := func(r *inventoryv1.ReserveStockRequest, at time.Time) *inventoryv1.ReserveStockRequest {
		r.ValidUntil = timestamppb.New(at)
		return r
	}
	unknown := reservation("7", 1)
	unknown.ProductId = "pen"
	for name, c := range map[string]struct {
		req    *inventoryv1.ReserveStockRequest
		reason typev1.ErrorReason
	}{
		"in another quantity":        {reservation("held", 1), typev1.ErrorReason_ERROR_REASON_RESERVATION_DIFFERS},
		"after it was released":      {reservation("ended", 1), typev1.ErrorReason_ERROR_REASON_RESERVATION_ENDED},
		"after a release came":       {reservation("never", 1), typev1.ErrorReason_ERROR_REASON_RESERVATION_ENDED},
		"too late":                   {until(reservation("7", 1), noon.Add(-time.Second)), typev1.ErrorReason_ERROR_REASON_ATTEMPT_EXPIRED},
		"too late, and too much":     {until(reservation("7", 99), noon.Add(-time.Second)), typev1.ErrorReason_ERROR_REASON_ATTEMPT_EXPIRED},
		"valid for too long":         {until(reservation("7", 1), noon.Add(25*time.Hour)), typev1.ErrorReason_ERROR_REASON_INVALID_FIELD},
		"of a product never created": {unknown, typev1.ErrorReason_ERROR_REASON_PRODUCT_NOT_FOUND},
	} {
		if _, err := s.ReserveStock(t.Context(), c.req); !fault.Is(err, c.reason) {
			t.Errorf("%s: %v, want %v", name, err, c.reason)
		}
	}
	if after := lastEvent(t, log); !proto.Equal(before, after) {
		t.Errorf("a refusal left %v behind", after)
	}
	// The same attempt under a later deadline is the same request, and one that is done needs none.
	late := until(reservation("9", 1), noon.Add(-time.Second))
	if _, err := s.ReserveStock(t.Context(), late); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_ATTEMPT_EXPIRED) {
		t.Error(err)
	}
	for _, at := range []time.Time{noon.Add(time.Minute), noon.Add(-time.Second)} {
		if reply, err := s.ReserveStock(t.Context(), until(late, at)); err != nil || reply.GetOutcome() != inventoryv1.ReservationOutcome_RESERVATION_OUTCOME_RESERVED {
			t.Errorf("valid until %s: %v, %v", at, reply, err)
		}
	}
}

func TestReleaseSaysWhoseWishItWas(t *testing.T) {
	s, log := stocked(t, 5)
	saga := origin.With(t.Context(), origin.Origin{Actor: origin.Saga})
	for order, c := range map[string]struct {
		ctx    context.Context
		reason stockevent.ReleaseReason
	}{
		"7": {t.Context(), stockevent.ReleaseReason_RELEASE_REASON_REQUESTED},
		"8": {saga, stockevent.ReleaseReason_RELEASE_REASON_ORDER_ENDED},
	} {
		if _, err := s.ReserveStock(c.ctx, reservation(order, 2)); err != nil {
			t.Fatal(err)
		}
		first, err := s.ReleaseReservation(c.ctx, release(order))
		if err != nil {
			t.Fatal(err)
		}
		want := &stockevent.ReservationReleased{ProductId: "mug", OrderId: order, Quantity: 2, Reason: c.reason}
		if got := lastEvent(t, log); !proto.Equal(got, want) {
			t.Errorf("recorded %v, want %v", got, want)
		}
		if again, err := s.ReleaseReservation(c.ctx, release(order)); err != nil || again.GetEtag() != first.GetEtag() {
			t.Errorf("released by another request: %v, %v, first %v", again, err, first)
		}
	}
}

func TestCommitTakesTheGoodsOnce(t *testing.T) {
	s, log := stocked(t, 5)
	if _, err := s.ReserveStock(t.Context(), reservation("7", 2)); err != nil {
		t.Fatal(err)
	}
	req := commit("7")
	first, err := s.CommitReservation(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if want := (&inventoryv1.CommitReservationResponse{
		ProductId: "mug", OrderId: "7", Etag: `"2"`, ConsistencyToken: first.GetConsistencyToken(),
	}); !proto.Equal(first, want) || first.GetConsistencyToken() == "" {
		t.Errorf("replied %v, want %v", first, want)
	}
	want := &stockevent.ReservationCommitted{ProductId: "mug", OrderId: "7", Quantity: 2}
	if got := lastEvent(t, log); !proto.Equal(got, want) {
		t.Errorf("recorded %v, want %v", got, want)
	}
	for name, again := range map[string]*inventoryv1.CommitReservationRequest{"a repeat": req, "another request": commit("7")} {
		if reply, err := s.CommitReservation(t.Context(), again); err != nil || reply.GetEtag() != first.GetEtag() {
			t.Errorf("committed by %s: %v, %v, first %v", name, reply, err, first)
		}
	}
	// The rest can be had, and no more than that.
	if reply, err := s.ReserveStock(t.Context(), reservation("8", 4)); err != nil || reply.GetAvailable() != 3 {
		t.Errorf("reserved more than is left: %v, %v", reply, err)
	}
}

func TestCommitRefuses(t *testing.T) {
	s, log := stocked(t, 5)
	for _, order := range []string{"held", "left", "released"} {
		if _, err := s.ReserveStock(t.Context(), reservation(order, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.CommitReservation(t.Context(), commit("left")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReleaseReservation(t.Context(), release("released")); err != nil {
		t.Fatal(err)
	}
	before := lastEvent(t, log)
	send := func(req *inventoryv1.CommitReservationRequest) error {
		_, err := s.CommitReservation(t.Context(), req)
		return err
	}
	unknown, stale := commit("7"), commit("held")
	unknown.ProductId, stale.Etag = "pen", `"0"`
	_, releasing := s.ReleaseReservation(t.Context(), release("left"))
	_, reserving := s.ReserveStock(t.Context(), reservation("left", 1))
	for name, c := range map[string]struct {
		err    error
		reason typev1.ErrorReason
	}{
		"a commit of what was released":             {send(commit("released")), typev1.ErrorReason_ERROR_REASON_RESERVATION_NOT_HELD},
		"a commit of what was never reserved":       {send(commit("never")), typev1.ErrorReason_ERROR_REASON_RESERVATION_NOT_HELD},
		"a commit of a product never created":       {send(unknown), typev1.ErrorReason_ERROR_REASON_PRODUCT_NOT_FOUND},
		"a commit for an etag of before":            {send(stale), typev1.ErrorReason_ERROR_REASON_ETAG_MISMATCH},
		"a release of what has left":                {releasing, typev1.ErrorReason_ERROR_REASON_RESERVATION_COMMITTED},
		"a reservation that comes after its commit": {reserving, typev1.ErrorReason_ERROR_REASON_RESERVATION_ENDED},
	} {
		if !fault.Is(c.err, c.reason) {
			t.Errorf("%s: %v, want %v", name, c.err, c.reason)
		}
	}
	if after := lastEvent(t, log); !proto.Equal(before, after) {
		t.Errorf("a refusal left %v behind", after)
	}
	if err := send(commit("held")); err != nil {
		t.Errorf("committed after all that: %v", err)
	}
}

func TestStockBelongsToAProduct(t *testing.T) {
	s, _ := newServer(t)
	receive := &inventoryv1.ReceiveStockRequest{RequestId: uuid.NewString(), ProductId: "pen", Quantity: 1}
	if _, err := s.ReceiveStock(t.Context(), receive); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_PRODUCT_NOT_FOUND) {
		t.Errorf("received of a product never created: %v", err)
	}
	missing := release("7")
	missing.ProductId = "pen"
	if _, err := s.ReleaseReservation(t.Context(), missing); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_PRODUCT_NOT_FOUND) {
		t.Errorf("released of a product never created: %v", err)
	}
	reply, err := s.ReserveStock(t.Context(), reservation("7", 1))
	if err != nil || reply.GetOutcome() != inventoryv1.ReservationOutcome_RESERVATION_OUTCOME_REJECTED || reply.GetAvailable() != 0 {
		t.Errorf("reserved of a product never stocked: %v, %v", reply, err)
	}
}
