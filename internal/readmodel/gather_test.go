package readmodel

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// shelf has a row for every key but "none". It notes the statements it was asked by, and answers when it is let go.
type shelf struct {
	mu    sync.Mutex
	asked [][]string
	letGo chan error
}

func (s *shelf) read(ctx context.Context, keys []string) ([]string, error) {
	s.mu.Lock()
	s.asked = append(s.asked, keys)
	s.mu.Unlock()
	select {
	case err := <-s.letGo:
		var rows []string
		for _, k := range keys {
			if k != "none" && err == nil {
				rows = append(rows, k)
			}
		}
		return rows, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *shelf) gathering(most int) *gathering[string] {
	return &gathering[string]{read: s.read, key: func(row *string) string { return *row }, most: most}
}

func TestThoseWhoWaitAreServedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{letGo: make(chan error)}
		g := s.gathering(2)
		answers := make(chan string, 10)
		ask := func(key string) {
			go func() {
				row, err := g.one(t.Context(), key)
				if row == nil {
					answers <- fmt.Sprint(key, ": none, ", err)
					return
				}
				answers <- fmt.Sprint(key, ": ", *row)
			}()
			synctest.Wait() // so that they ask in this order
		}
		for _, key := range []string{"a", "b", "c", "none", "c", "d"} {
			ask(key)
		}
		equal(t, fmt.Sprint(s.asked), "[[a] [b]]") // the others wait
		want := func(lines ...string) {
			t.Helper()
			got := map[string]int{}
			for range lines {
				got[<-answers]++
			}
			for _, l := range lines {
				if got[l]--; got[l] < 0 {
					t.Errorf("%q was not answered", l)
				}
			}
		}
		s.letGo <- nil
		synctest.Wait()
		equal(t, fmt.Sprint(s.asked[2:]), "[[c none c d]]")
		s.letGo <- nil
		s.letGo <- nil
		want("a: a", "b: b", "c: c", "none: none, <nil>", "c: c", "d: d")
		equal(t, len(s.asked), 3)

		ask("e") // those that worked have ended
		s.letGo <- errors.New("away")
		want("e: none, away")
	})
}

// Each caller waits as long as it likes, and a statement as long as the last of those it serves.
func TestWhoeverGivesUpLeavesTheOthersTheirAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{letGo: make(chan error)}
		g := s.gathering(1)
		within := func(d time.Duration, key string) chan error {
			done := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), d)
				defer cancel()
				_, err := g.one(ctx, key)
				done <- err
			}()
			synctest.Wait()
			return done
		}
		first := within(time.Second, "a")
		hasty, patient := within(2*time.Second, "b"), within(time.Minute, "b")
		start := time.Now()
		equal(t, errors.Is(<-first, context.DeadlineExceeded), true) // and so does its statement
		equal(t, errors.Is(<-hasty, context.DeadlineExceeded), true)
		equal(t, time.Since(start), 2*time.Second)
		s.letGo <- nil
		equal(t, <-patient, nil)
		equal(t, fmt.Sprint(s.asked), "[[a] [b b]]")
	})
}
