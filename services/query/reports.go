package query

import (
	"context"
	"time"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/readmodel"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
)

func (s *server) ListReports(context.Context, *queryv1.ListReportsRequest) (*queryv1.ListReportsResponse, error) {
	return &queryv1.ListReportsResponse{Reports: each(s.models.ListReports(), func(r readmodel.Report) *queryv1.Report {
		return &queryv1.Report{Name: r.Name, Columns: each(r.Columns, column)}
	})}, nil
}

func (s *server) RunReport(ctx context.Context, req *queryv1.RunReportRequest) (*queryv1.RunReportResponse, error) {
	after, err := aggregate.ParseToken(req.GetConsistencyToken())
	if err != nil {
		return nil, err
	}
	r, lines, next, err := s.models.RunReport(ctx, req.GetReport(), page(req), after)
	if err != nil {
		return nil, err
	}
	return &queryv1.RunReportResponse{
		Columns: each(r.Columns, column),
		Rows: each(lines, func(line []readmodel.Cell) *queryv1.Row {
			return &queryv1.Row{Cells: each(line, cell)}
		}),
		NextPageToken: next,
	}, nil
}

func column(c readmodel.Column) *queryv1.Column {
	t := queryv1.ColumnType_COLUMN_TYPE_STRING
	switch c.Type {
	case readmodel.Int64Column:
		t = queryv1.ColumnType_COLUMN_TYPE_INT64
	case readmodel.DateColumn:
		t = queryv1.ColumnType_COLUMN_TYPE_DATE
	case readmodel.MoneyColumn:
		t = queryv1.ColumnType_COLUMN_TYPE_MONEY
	}
	return &queryv1.Column{Name: c.Name, Type: t}
}

func cell(c readmodel.Cell) *queryv1.Cell {
	switch v := c.(type) {
	case int64:
		return &queryv1.Cell{Value: &queryv1.Cell_Number{Number: v}}
	case time.Time:
		return &queryv1.Cell{Value: &queryv1.Cell_Date{Date: v.Format(time.DateOnly)}}
	case readmodel.Money:
		return &queryv1.Cell{Value: &queryv1.Cell_Money{Money: money(v.Currency, v.Amount)}}
	case string:
		return &queryv1.Cell{Value: &queryv1.Cell_Text{Text: v}}
	}
	return &queryv1.Cell{} // the four types are all there are
}
