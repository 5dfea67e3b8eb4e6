package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/purserhq/purser/internal/localpostgres"
	"github.com/purserhq/purser/services/saga"
)

// A second saga shares the orders with that of a whole Purser, and is killed in the midst of them: the other one finishes all,
// and no step has a second effect, by the books of the stock and of the bank.
func TestASagaThatIsKilledLeavesItsOrdersToTheOther(t *testing.T) {
	i := newInstance(t)
	database, err := localpostgres.Find(filepath.Join(i.dir, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	own := sagaPorts.offset(freeOffset(t))
	_, metrics := own.on(loopback)
	second := runPurser(t, "saga", "--grpc-port", strconv.Itoa(own.grpc), "--http-port", strconv.Itoa(own.http), "--postgres-url", database,
		"--eventstore-url", "esdb://"+i.addr(eventstorePorts)+"?tls=false", "--secret-file", filepath.Join(i.dir, "secret"),
		"--write-url", i.addr(writePorts), "--inventory-url", i.addr(inventoryPorts), "--payment-url", i.addr(paymentPorts))
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	eventually(t, startTimeout, func() error { // it has its share
		var shares int
		if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM (SELECT FROM consumer.leases JOIN consumer.builds USING (build)
			WHERE model = $1 AND expires_at > clock_timestamp() GROUP BY member HAVING count(*) = 8) AS halves`, saga.Models()[0].Name()).Scan(&shares); err != nil {
			return err
		}
		if shares != 2 {
			return fmt.Errorf("%d of the two have a half\n%s", shares, second.stderr)
		}
		return nil
	})

	product := i.stocked(t, 50)
	placed := make(chan []string)
	go func() { placed <- i.placeMany(t, t.Context(), product, 200) }()
	eventually(t, settle, func() error {
		if n, err := stepsDone(metrics); err != nil || n < 20 {
			return fmt.Errorf("it has done %d steps (%v)", n, err)
		}
		return nil
	})
	second.kill(t)
	i.wantSold(t, product, <-placed, 50)
	if n, err := stepsDone(i.httpAddr(sagaPorts)); err != nil || n < 20 {
		t.Errorf("the other has done %d steps (%v)", n, err)
	}
}

// stepsDone is how many steps a saga has done, by its metrics.
func stepsDone(addr string) (int, error) {
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	done := 0
	for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
		if name, value, ok := strings.Cut(sc.Text(), "} "); ok && strings.HasPrefix(name, `purser_saga_attempts_total{outcome="done"`) {
			n, err := strconv.Atoi(value)
			if err != nil {
				return 0, err
			}
			done += n
		}
	}
	return done, nil
}
