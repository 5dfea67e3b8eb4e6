package query

import (
	"context"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/readmodel"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
)

func (s *server) GetProduct(ctx context.Context, req *queryv1.GetProductRequest) (*queryv1.GetProductResponse, error) {
	after, err := aggregate.ParseToken(req.GetConsistencyToken())
	if err != nil {
		return nil, err
	}
	p, err := s.models.GetProduct(ctx, req.GetProductId(), after)
	if err != nil {
		return nil, err
	}
	return &queryv1.GetProductResponse{Product: product(p)}, nil
}

func (s *server) ListProducts(ctx context.Context, req *queryv1.ListProductsRequest) (*queryv1.ListProductsResponse, error) {
	after, err := aggregate.ParseToken(req.GetConsistencyToken())
	if err != nil {
		return nil, err
	}
	p := page(req)
	p.OrderBy, p.Search = req.GetOrderBy(), req.GetQuery()
	products, next, err := s.models.ListProducts(ctx, p, after)
	if err != nil {
		return nil, err
	}
	return &queryv1.ListProductsResponse{Products: each(products, product), NextPageToken: next}, nil
}

func (s *server) GetStockLevel(ctx context.Context, req *queryv1.GetStockLevelRequest) (*queryv1.GetStockLevelResponse, error) {
	after, err := aggregate.ParseToken(req.GetConsistencyToken())
	if err != nil {
		return nil, err
	}
	l, err := s.models.GetStockLevel(ctx, req.GetProductId(), after)
	if err != nil {
		return nil, err
	}
	return &queryv1.GetStockLevelResponse{
		ProductId: l.ProductID, OnHand: l.OnHand, Reserved: l.Reserved, Available: l.Available,
	}, nil
}

func (s *server) ListStockLevels(ctx context.Context, req *queryv1.ListStockLevelsRequest) (*queryv1.ListStockLevelsResponse, error) {
	after, err := aggregate.ParseToken(req.GetConsistencyToken())
	if err != nil {
		return nil, err
	}
	p := page(req)
	p.OrderBy = req.GetOrderBy()
	levels, next, err := s.models.ListStockLevels(ctx, p, after)
	if err != nil {
		return nil, err
	}
	return &queryv1.ListStockLevelsResponse{StockLevels: each(levels, stockLevel), NextPageToken: next}, nil
}

func stockLevel(l readmodel.StockLevel) *queryv1.StockLevel {
	return &queryv1.StockLevel{ProductId: l.ProductID, OnHand: l.OnHand, Reserved: l.Reserved, Available: l.Available}
}

func product(p readmodel.Product) *queryv1.Product {
	return &queryv1.Product{
		ProductId: p.ProductID, Name: p.Name, Description: p.Description, Price: money(p.Currency, p.Price),
		Discontinued: p.Discontinued, Etag: aggregate.Etag(p.Revision),
		CreateTime: timestamp(p.CreateTime), UpdateTime: timestamp(p.UpdateTime),
	}
}
