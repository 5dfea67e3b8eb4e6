package consumer

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/purserhq/purser/internal/eventlog"
)

// runner runs those partitions of a build that are ours, in lanes. Usually there is one lane, which follows the feed with
// all of them; partitions that are behind it have lanes of their own until they are level.
type runner struct {
	c     *Consumer
	name  string // of the build
	model Model
	shape shape
	// meetings is where a lane that has come level finds the one that follows.
	meetings chan *meeting

	mu     sync.Mutex
	build  build
	owners map[int]uuid.UUID // of the partitions that are ours
	given  map[int]bool      // to be given up as soon as their lane can
	wishes []wish
	paused bool
	ended  bool
	lanes  map[*lane]bool
	// follower is the lane that follows the feed, and that others join.
	follower *lane
}

func (c *Consumer) newRunner(m Model, b build) *runner {
	return &runner{
		c: c, name: b.name, model: m, build: b, shape: m.open(b.name),
		meetings: make(chan *meeting), owners: map[int]uuid.UUID{}, given: map[int]bool{}, lanes: map[*lane]bool{},
	}
}

// label is how metrics name the build: by the model where readers are sent to it, or will be as it is the first. No two builds
// may have one label.
func (r *runner) label() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.build.live || r.build.number == 1 && !r.build.lived {
		return r.model.name
	}
	return r.name
}

// isFilled tells whether the build has come to where the log ended when it was begun, and has its indexes.
func (r *runner) isFilled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.build.filled
}

// take begins to run partitions that have become ours.
func (r *runner) take(taken parts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range taken {
		r.owners[p.number] = p.owner
		delete(r.given, p.number)
	}
	r.start(taken)
}

// start begins a lane with partitions. The mutex is held.
func (r *runner) start(ps parts) {
	if len(ps) == 0 || r.ended {
		return
	}
	l := newLane(r, ps)
	r.lanes[l] = true
	r.c.begin(func(ctx context.Context) error {
		defer r.end(l)
		return l.run(ctx)
	})
}

func (r *runner) end(l *lane) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.lanes, l)
}

// keep tells which partitions are ours by what Postgres says; what is not any more, its lane drops.
func (r *runner) keep(ours map[int]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.owners {
		if !ours[p] {
			delete(r.owners, p)
			delete(r.given, p)
		}
	}
}

// owned is how many partitions are ours, without those that are about to be given up.
func (r *runner) owned() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.owners) - len(r.given)
}

// giveUp has so many partitions given up.
func (r *runner) giveUp(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := map[int]bool{}
	for p := range r.owners {
		if !r.given[p] {
			kept[p] = true
		}
	}
	for _, p := range some(kept, n) {
		r.given[p] = true
	}
}

// update passes on what Postgres says of the build, and what operators want of it.
func (r *runner) update(b build, paused bool, wishes []wish) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.build, r.paused, r.wishes = b, paused, wishes
}

// stop ends the lanes: the build is being removed.
func (r *runner) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	clear(r.owners)
}

// orders are what a lane has to do before it goes on.
type orders struct {
	paused bool
	lost   parts // that are not ours any more
	given  parts // to be given up
}

func (r *runner) orders(l *lane) orders {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := orders{paused: r.paused}
	for _, p := range l.parts {
		switch {
		case r.owners[p.number] != p.owner:
			o.lost = append(o.lost, p)
		case r.given[p.number]:
			o.given = append(o.given, p)
		}
	}
	return o
}

// wishesOf are the orders to try keys of a lane again.
func (r *runner) wishesOf(l *lane) []wish {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []wish
	for _, w := range r.wishes {
		if l.has(partitionOf(w.Key)) {
			all = append(all, w)
		}
	}
	return all
}

// dropped notes that partitions were given up, or lost. Those that have been taken again since are ours.
func (r *runner) dropped(ps parts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range ps {
		if r.owners[p.number] == p.owner {
			delete(r.owners, p.number)
			delete(r.given, p.number)
		}
	}
}

// granted notes that an order was carried out, whatever came of it.
func (r *runner) granted(w wish) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wishes = slices.DeleteFunc(r.wishes, func(o wish) bool { return o == w })
}

// split has another lane go on with some of a lane's partitions.
func (r *runner) split(l *lane, away parts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.parts = slices.DeleteFunc(l.parts, func(p part) bool { return slices.Contains(away, p) })
	r.start(away)
}

// lead makes a lane the one that follows, if no other is, and returns its queue.
func (r *runner) lead(l *lane) (q *queue, after eventlog.Position, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.follower != nil {
		return nil, 0, false
	}
	if q, after, ok = r.c.feed.join(); ok {
		r.follower = l
	}
	return q, after, ok
}

func (r *runner) unlead(l *lane, q *queue) {
	r.c.feed.leave(q)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.follower == l {
		r.follower = nil
	}
}

// merge has a lane go on with the partitions of another one that stands where it does.
func (r *runner) merge(into, from *lane) {
	r.mu.Lock()
	defer r.mu.Unlock()
	into.parts, from.parts = append(into.parts, from.parts...), nil
	into.position = max(into.position, from.position)
	for key, since := range from.parked {
		into.parked[key] = since
	}
}

// hasFollower tells whether there is somebody to be joined.
func (r *runner) hasFollower() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.follower != nil
}

// level are the partitions that follow the log, or have at least had all that it held when they were taken.
func (r *runner) level() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []int
	for l := range r.lanes {
		all = append(all, r.levelIn(l)...)
	}
	return all
}

// levelIn is level of one lane. The mutex is held.
func (r *runner) levelIn(l *lane) []int {
	var level []int
	for _, p := range l.parts {
		if l.caughtUp.Load() && r.owners[p.number] == p.owner {
			level = append(level, p.number)
		}
	}
	return level
}

// state tells whether all partitions that are ours follow the log, and for how long one has lacked something.
func (r *runner) state(now time.Time) (caughtUp bool, behind time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for l := range r.lanes {
		n += len(r.levelIn(l))
		behind = max(behind, l.lag(now))
	}
	return n == len(r.owners), behind
}

// parked is how many keys are parked here, and for how long the first of them has been.
func (r *runner) parked(now time.Time) (keys int, oldest time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for l := range r.lanes {
		keys += int(l.parkedKeys.Load())
		if since := l.oldest.Load(); since != 0 {
			oldest = max(oldest, now.Sub(time.Unix(0, since)))
		}
	}
	return keys, oldest
}

func (r *runner) owns(partition int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ours := r.owners[partition]
	return ours
}

// isLive tells whether readers are sent to the build.
func (r *runner) isLive() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.build.live
}

// isPaused tells whether an operator wants the model to rest.
func (r *runner) isPaused() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.paused
}

// current is what was last read of the build.
func (r *runner) current() build {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.build
}
