package rpc

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// mirror is a service whose messages have maps, and whose second method is a stream.
var mirror = grpc.ServiceDesc{
	ServiceName: "purser.test.v1.MirrorService",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Reflect",
		Handler: func(_ any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			req := &structpb.Struct{}
			if err := decode(req); err != nil {
				return nil, err
			}
			same := func(_ context.Context, req any) (any, error) { return req, nil }
			return intercept(ctx, req, &grpc.UnaryServerInfo{FullMethod: "/purser.test.v1.MirrorService/Reflect"}, same)
		},
	}},
	Streams: []grpc.StreamDesc{{
		StreamName: "ReflectAll", ClientStreams: true, ServerStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error {
			req := &structpb.Struct{}
			if err := stream.RecvMsg(req); err != nil {
				return err
			}
			return stream.SendMsg(req)
		},
	}},
}

// serve runs a server with the mirror and an order service that implements nothing.
func serveChecked(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer("test", slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()))
	s.RegisterService(&mirror, struct{}{})
	orderv1.RegisterOrderServiceServer(s, orderv1.UnimplementedOrderServiceServer{})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// wantInvalid expects INVALID_ARGUMENT with a violation of one field, and of none where field is empty.
func wantInvalid(t *testing.T, err error, field string) {
	t.Helper()
	s := status.Convert(err)
	if field == "" {
		if s.Code() == codes.InvalidArgument {
			t.Errorf("refused: %v", err)
		}
		return
	}
	var got []string
	for _, d := range s.Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				got = append(got, v.GetField())
			}
		}
	}
	if s.Code() != codes.InvalidArgument || len(got) != 1 || got[0] != field {
		t.Errorf("%v with violations of %q, want one of %q", err, got, field)
	}
}

func TestNULIsRefusedWhereverItIs(t *testing.T) {
	conn := stranger(t, serveChecked(t))
	orders := orderv1.NewOrderServiceClient(conn)
	for field, change := range map[string]func(*orderv1.PlaceOrderRequest){
		"":                           func(*orderv1.PlaceOrderRequest) {},
		"payment_method":             func(r *orderv1.PlaceOrderRequest) { r.PaymentMethod = "pm\x00" },
		"delivery_address.recipient": func(r *orderv1.PlaceOrderRequest) { r.DeliveryAddress.Recipient = proto.String("\x00") },
		"lines[1].product_id":        func(r *orderv1.PlaceOrderRequest) { r.Lines[1].ProductId = "lamp\x00" },
	} {
		req := &orderv1.PlaceOrderRequest{
			RequestId: "6a4c6e5e-55e9-4a0c-8a38-6ad2c8f1a001", CustomerId: "c", PaymentMethod: "pm",
			Lines: []*orderv1.OrderLineRequest{{ProductId: "mug", Quantity: 1}, {ProductId: "lamp", Quantity: 1}},
			DeliveryAddress: &typev1.Address{
				Recipient: proto.String("Ann"), Line1: proto.String("Street 1"), City: proto.String("Rotterdam"), PostalCode: "3011", CountryCode: "NL",
			},
		}
		change(req)
		_, err := orders.PlaceOrder(t.Context(), req)
		wantInvalid(t, err, field)
	}

	for field, value := range map[string]any{
		"":                         map[string]any{"a": []any{"b", map[string]any{"c": "d"}}},
		`fields["a\x00"]`:          map[string]any{"a\x00": "b"},
		`fields["a"].string_value`: map[string]any{"a": "\x00"},
		`fields["a"].list_value.values[1].struct_value.fields["c"].string_value`: map[string]any{"a": []any{"b", map[string]any{"c": "d\x00"}}},
	} {
		req, err := structpb.NewStruct(value.(map[string]any))
		if err != nil {
			t.Fatal(err)
		}
		wantInvalid(t, conn.Invoke(t.Context(), "/purser.test.v1.MirrorService/Reflect", req, &structpb.Struct{}), field)

		stream, err := conn.NewStream(t.Context(), &mirror.Streams[0], "/purser.test.v1.MirrorService/ReflectAll")
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.SendMsg(req); err != nil {
			t.Fatal(err)
		}
		wantInvalid(t, stream.RecvMsg(&structpb.Struct{}), field)
	}
}

// The usual client sends printable ASCII only; another need not.
func TestRequestMetadataWithControlCharactersIsRefused(t *testing.T) {
	addr := serveChecked(t)
	h2c := &http.Protocols{}
	h2c.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: h2c}
	defer transport.CloseIdleConnections()
	for _, method := range []string{"Reflect", "ReflectAll"} {
		for _, key := range []string{actorKey, correlationKey, causationKey, traceparentKey} {
			for value, field := range map[string]string{"ann": "", "Ö": "", "a\tb": key, "a\xffb": key, "a\u0085b": key} {
				frame := binary.BigEndian.AppendUint32([]byte{0}, 0) // not compressed, an empty message
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/purser.test.v1.MirrorService/"+method, bytes.NewReader(frame))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Content-Type", "application/grpc")
				req.Header.Set("TE", "trailers")
				req.Header.Set(key, value)
				resp, err := transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				wantInvalid(t, statusOf(t, resp), field)
			}
		}
	}
}

// statusOf reads the status of a call from the response of the transport.
func statusOf(t *testing.T, resp *http.Response) error {
	t.Helper()
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	details := resp.Trailer.Get("Grpc-Status-Details-Bin") + resp.Header.Get("Grpc-Status-Details-Bin")
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(details, "="))
	if err != nil {
		t.Fatal(err)
	}
	var s statuspb.Status
	if err := proto.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	if code := resp.Trailer.Get("Grpc-Status") + resp.Header.Get("Grpc-Status"); code == "" || (code == "0") != (s.GetCode() == 0) {
		t.Fatalf("grpc-status %q with details %v", code, &s)
	}
	return status.FromProto(&s).Err()
}
