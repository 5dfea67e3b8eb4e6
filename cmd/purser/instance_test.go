package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	catalogv1 "github.com/purserhq/purser/proto/purser/catalog/v1"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	paymentv1 "github.com/purserhq/purser/proto/purser/payment/v1"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
)

// asPurser makes the test binary behave as the purser binary, so that real processes can be started and killed.
const asPurser = "PURSER_TEST_MAIN"

const startTimeout = time.Minute

func TestMain(m *testing.M) {
	if os.Getenv(asPurser) != "" {
		os.Unsetenv(asPurser)
		main()
		return
	}
	os.Exit(m.Run())
}

// purser returns the command that runs the purser binary.
func purser(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), asPurser+"=1")
	return cmd
}

// instance is a `purser dev` in a process of its own.
type instance struct {
	t      *testing.T
	dir    string
	offset int
	args   []string
	// program is another build of purser; "" is this one.
	program string
	// patience is how long a start may take; 0 is startTimeout.
	patience time.Duration

	cmd    *exec.Cmd
	stdout *bytes.Buffer // for the reader of the output, and once it is done for all
	stderr *lockedBuffer
	done   chan struct{} // closed when the output has ended

	clients
}

type clients struct {
	catalog   catalogv1.CatalogServiceClient
	orders    orderv1.OrderServiceClient
	inventory inventoryv1.InventoryServiceClient
	payment   paymentv1.PaymentServiceClient
	query     queryv1.QueryServiceClient
}

// newInstance starts a fresh one and stops it at the end of the test.
func newInstance(t *testing.T, args ...string) *instance {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a whole Purser")
	}
	i := &instance{t: t, dir: pgtest.Dir(t), offset: freeOffset(t), args: args}
	i.start()
	t.Cleanup(func() {
		if i.cmd == nil {
			i.start() // adopts what a kill left running, to stop it
		}
		i.stop()
	})
	i.clients = i.dial()
	return i
}

func (i *instance) start() {
	i.t.Helper()
	args := append([]string{"dev", "--data-dir", i.dir, "--port-offset", strconv.Itoa(i.offset), "--log-format", "json"}, i.args...)
	i.cmd = purser(context.Background(), args...)
	if i.program != "" {
		i.cmd.Path = i.program
	}
	i.stdout, i.stderr, i.done = &bytes.Buffer{}, &lockedBuffer{}, make(chan struct{})
	i.cmd.Stderr = i.stderr
	out, err := i.cmd.StdoutPipe()
	if err != nil {
		i.t.Fatal(err)
	}
	if err := i.cmd.Start(); err != nil {
		i.t.Fatal(err)
	}
	ready := make(chan struct{})
	go func() {
		defer close(i.done)
		var once sync.Once
		for sc := bufio.NewScanner(io.TeeReader(out, i.stdout)); sc.Scan(); {
			if strings.Contains(sc.Text(), "bin/grpcurl") {
				once.Do(func() { close(ready) })
			}
		}
	}()
	select {
	case <-ready:
	case <-i.done:
		err := i.cmd.Wait()
		i.cmd = nil
		i.t.Fatalf("purser dev ended: %v\n%s", err, i.stderr)
	case <-time.After(cmp.Or(i.patience, startTimeout)):
		i.t.Fatalf("purser dev is not ready after %s\n%s", cmp.Or(i.patience, startTimeout), i.stderr)
	}
}

// stop asks the process to stop, as Ctrl-C does, and expects a clean end.
func (i *instance) stop() {
	i.t.Helper()
	if err := i.cmd.Process.Signal(os.Interrupt); err != nil {
		i.t.Fatal(err)
	}
	<-i.done
	if err := i.cmd.Wait(); err != nil {
		i.t.Errorf("purser dev did not stop cleanly: %v\n%s", err, i.stderr)
	}
	i.cmd = nil
}

// kill ends the process without warning.
func (i *instance) kill() {
	i.t.Helper()
	if err := i.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		i.t.Fatal(err)
	}
	<-i.done
	var exit *exec.ExitError
	if err := i.cmd.Wait(); !errors.As(err, &exit) {
		i.t.Fatalf("killed: %v", err)
	}
	i.cmd = nil
}

func (i *instance) addr(p ports) string { a, _ := p.offset(i.offset).on(loopback); return a }

func (i *instance) httpAddr(p ports) string { _, a := p.offset(i.offset).on(loopback); return a }

// dial connects as any client would, without the project's own client code.
func (i *instance) dial() clients {
	conn := func(p ports) *grpc.ClientConn {
		c, err := grpc.NewClient(i.addr(p), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			i.t.Fatal(err)
		}
		i.t.Cleanup(func() { c.Close() })
		return c
	}
	write := conn(writePorts)
	return clients{
		catalog: catalogv1.NewCatalogServiceClient(write), orders: orderv1.NewOrderServiceClient(write),
		inventory: inventoryv1.NewInventoryServiceClient(conn(inventoryPorts)),
		payment:   paymentv1.NewPaymentServiceClient(conn(paymentPorts)),
		query:     queryv1.NewQueryServiceClient(conn(queryPorts)),
	}
}

// offsets are those that were given out before, whether or not somebody listens there yet.
var offsets sync.Map

// freeOffset finds a port offset at which every port is free, and at which no other test of this process will start anything.
// All lie outside the range from which the kernel gives ports to clients, so that only another instance could take one; and so
// far apart that no two have a port in common.
func freeOffset(t *testing.T) int {
	t.Helper()
	for range 1000 {
		offset := 10950 + 10*rand.N(450)
		if !portsFree(offset) {
			continue
		}
		if _, taken := offsets.LoadOrStore(offset, true); !taken {
			return offset
		}
	}
	t.Fatal("no free ports")
	return 0
}

func portsFree(offset int) bool {
	for _, p := range []ports{writePorts, queryPorts, inventoryPorts, paymentPorts, sagaPorts, projectorPorts, eventstorePorts} {
		for _, port := range []int{p.grpc, p.http} {
			l, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(port+offset)))
			if err != nil {
				return false
			}
			l.Close()
		}
	}
	return true
}

// eventually waits until check succeeds.
func eventually(t *testing.T, within time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %v", within, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// lockedBuffer may be read while a process writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// repositoryRoot is the folder that holds go.mod.
func repositoryRoot(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(fmt.Errorf("find the repository: %w", err))
	}
	return dir
}
