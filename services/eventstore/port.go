package eventstore

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// prefaceStart begins the preface of every HTTP/2 connection without TLS, and no HTTP/1 request.
	prefaceStart   = "PRI "
	prefaceTimeout = 10 * time.Second
	acceptPause    = 50 * time.Millisecond // after a failed accept, such as too many open files
)

// port shares one listener between gRPC, which is HTTP/2 only, and HTTP/1, by the first bytes of each connection. gRPC
// then has its own transport, faster than what it offers behind net/http.
type port struct {
	net.Listener
	grpc, http *handoff
}

func newPort(lis net.Listener) *port {
	return &port{Listener: lis, grpc: newHandoff(lis.Addr()), http: newHandoff(lis.Addr())}
}

// serve accepts until ctx ends, and then waits for the connections that it has not handed over.
func (p *port) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = p.Close() })
	defer stop()
	var routing sync.WaitGroup
	defer routing.Wait()
	for {
		c, err := p.Accept()
		switch {
		case err == nil:
			routing.Go(func() { p.route(ctx, c) })
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
		}
	}
}

// route hands a connection over to the server it is meant for, or closes it.
func (p *port) route(ctx context.Context, c net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	start := make([]byte, len(prefaceStart))
	err := c.SetReadDeadline(time.Now().Add(prefaceTimeout))
	if err == nil {
		_, err = io.ReadFull(c, start)
	}
	if err == nil {
		err = c.SetReadDeadline(time.Time{})
	}
	if !stop() || err != nil {
		_ = c.Close()
		return
	}
	to := p.http
	if string(start) == prefaceStart {
		to = p.grpc
	}
	to.give(&replayed{Conn: c, start: start})
}

// replayed is a connection whose first bytes, already read, are read again.
type replayed struct {
	net.Conn
	start []byte
}

func (c *replayed) Read(b []byte) (int, error) {
	if len(c.start) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.start)
	c.start = c.start[n:]
	return n, nil
}

// handoff is a listener whose connections come from elsewhere.
type handoff struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

var _ net.Listener = (*handoff)(nil)

func newHandoff(addr net.Addr) *handoff {
	return &handoff{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (h *handoff) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.closed:
		_ = c.Close()
	}
}

func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *handoff) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

func (h *handoff) Addr() net.Addr { return h.addr }
