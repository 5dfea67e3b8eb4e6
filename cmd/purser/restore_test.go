package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"

	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// An older log is restored under newer read models: that is said in one sentence, and after what is derived was dropped, as
// the operations page says, everything agrees with the log again.
func TestAnOlderLogIsNoticedAndEverythingRebuilt(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole Purser")
	}
	database := pgtest.Database(t)
	dir := pgtest.Dir(t)
	i := newInstance(t, "--postgres-url", database)
	log := filepath.Join(i.dir, "eventstore")
	product := i.stocked(t, 5)
	confirmed := func() string {
		t.Helper()
		placed, err := i.orders.PlaceOrder(t.Context(), orderOf(product, 1, "pm_card_visa"))
		if err != nil {
			t.Fatal(err)
		}
		return i.reaches(t, placed.GetOrderId(), typev1.OrderState_ORDER_STATE_CONFIRMED).GetOrderId()
	}
	older := confirmed()
	want, err := i.get(t.Context(), older, "")
	if err != nil {
		t.Fatal(err)
	}
	i.stop()
	backup := filepath.Join(dir, "backup")
	if err := os.CopyFS(backup, os.DirFS(log)); err != nil {
		t.Fatal(err)
	}
	i.start()
	newer := confirmed()
	i.stop()

	if err := os.RemoveAll(log); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(log, os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	var stderr bytes.Buffer
	cmd := purser(ctx, "dev", "--data-dir", i.dir, "--port-offset", strconv.Itoa(i.offset), "--postgres-url", database, "--log-level", "error")
	cmd.Stderr = &stderr
	if err := cmd.Run(); err == nil || ctx.Err() != nil || strings.Count(stderr.String(), "\n") != 1 || !strings.Contains(stderr.String(), "drop what is derived") {
		t.Errorf("on the older log: %v, %s", err, &stderr)
	}

	// Either way drops what is derived: dev's own, and the SQL of the page.
	i.args = append(i.args, "--rebuild")
	i.start()
	agrees := func() {
		t.Helper()
		if got := i.reaches(t, older, typev1.OrderState_ORDER_STATE_CONFIRMED); got.String() != want.String() {
			t.Errorf("before %v, after %v", want, got)
		}
		_, err := i.get(t.Context(), newer, "")
		wantError(t, err, codes.NotFound, "ORDER_NOT_FOUND")
	}
	agrees()
	i.stop()
	i.args = i.args[:len(i.args)-1]
	dropDerived(t, database)
	dropDerived(t, database) // twice does no harm
	i.start()
	agrees()
	confirmed()
	if l := i.level(t, product); l.GetReserved() != 2 {
		t.Errorf("stock %v, want 2 reserved", l)
	}
}

// dropDerived does what docs/operations.md says.
func dropDerived(t *testing.T, database string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(repositoryRoot(t), "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```sql\n(.*?)```").FindSubmatch(page)
	if block == nil {
		t.Fatal("docs/operations.md has no SQL")
	}
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), string(block[1])); err != nil {
		t.Fatal(err)
	}
}
