package write

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/domain/catalog"
	catalogv1 "github.com/purserhq/purser/proto/purser/catalog/v1"
)

type catalogServer struct {
	catalogv1.UnimplementedCatalogServiceServer
	products *aggregate.Handler[catalog.State]
	prices   *prices
}

func (s *catalogServer) CreateProduct(ctx context.Context, req *catalogv1.CreateProductRequest) (*catalogv1.CreateProductResponse, error) {
	c := catalog.Create{ID: req.GetProductId(), Name: req.GetName(), Description: req.GetDescription(), Price: req.GetPrice()}
	done, err := s.products.Create(ctx, req.GetProductId(), req, func(st *catalog.State) ([]proto.Message, error) { return st.Create(c) })
	if err != nil {
		return nil, err
	}
	return &catalogv1.CreateProductResponse{ProductId: req.GetProductId(), Etag: done.Etag(), ConsistencyToken: done.Token()}, nil
}

func (s *catalogServer) RenameProduct(ctx context.Context, req *catalogv1.RenameProductRequest) (*catalogv1.RenameProductResponse, error) {
	c := catalog.Rename{ID: req.GetProductId(), Name: req.GetName()}
	done, err := s.handle(ctx, req, func(st *catalog.State) ([]proto.Message, error) { return st.Rename(c) })
	if err != nil {
		return nil, err
	}
	return &catalogv1.RenameProductResponse{ProductId: req.GetProductId(), Etag: done.Etag(), ConsistencyToken: done.Token()}, nil
}

func (s *catalogServer) ChangePrice(ctx context.Context, req *catalogv1.ChangePriceRequest) (*catalogv1.ChangePriceResponse, error) {
	c := catalog.ChangePrice{ID: req.GetProductId(), Price: req.GetPrice()}
	done, err := s.handle(ctx, req, func(st *catalog.State) ([]proto.Message, error) { return st.ChangePrice(c) })
	if err != nil {
		return nil, err
	}
	return &catalogv1.ChangePriceResponse{ProductId: req.GetProductId(), Etag: done.Etag(), ConsistencyToken: done.Token()}, nil
}

func (s *catalogServer) DiscontinueProduct(ctx context.Context, req *catalogv1.DiscontinueProductRequest) (*catalogv1.DiscontinueProductResponse, error) {
	c := catalog.Discontinue{ID: req.GetProductId()}
	done, err := s.handle(ctx, req, func(st *catalog.State) ([]proto.Message, error) { return st.Discontinue(c) })
	if err != nil {
		return nil, err
	}
	return &catalogv1.DiscontinueProductResponse{ProductId: req.GetProductId(), Etag: done.Etag(), ConsistencyToken: done.Token()}, nil
}

// handle carries out a command on a product, which is priced anew then.
func (s *catalogServer) handle(ctx context.Context, req interface {
	aggregate.Command
	GetProductId() string
}, decide aggregate.Decide[catalog.State]) (aggregate.Done, error) {
	defer s.prices.forget(req.GetProductId())
	return s.products.Handle(ctx, req.GetProductId(), req, decide)
}
