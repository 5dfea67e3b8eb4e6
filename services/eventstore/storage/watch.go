package storage

import "sync"

// Watcher tells that there may be something new to read. A signal stands for any number of appends.
type Watcher struct {
	// C receives after events have become readable.
	C <-chan struct{}

	c      chan struct{}
	stream string
	from   *watchers
}

// Watch watches a stream, or the whole log if the name is empty. Whoever then reads, and waits for C when there is
// nothing, misses nothing. The watcher must be closed.
func (s *Store) Watch(stream string) *Watcher {
	c := make(chan struct{}, 1)
	w := &Watcher{C: c, c: c, stream: stream, from: &s.watch}
	w.from.mu.Lock()
	defer w.from.mu.Unlock()
	if w.from.byStream == nil {
		w.from.byStream = make(map[string]map[*Watcher]struct{})
	}
	set := w.from.byStream[stream]
	if set == nil {
		set = make(map[*Watcher]struct{})
		w.from.byStream[stream] = set
	}
	set[w] = struct{}{}
	return w
}

// Close ends the watch.
func (w *Watcher) Close() {
	w.from.mu.Lock()
	defer w.from.mu.Unlock()
	set := w.from.byStream[w.stream]
	delete(set, w)
	if len(set) == 0 {
		delete(w.from.byStream, w.stream)
	}
}

// watchers are the open watchers by stream; those of the whole log are under the empty name.
type watchers struct {
	mu       sync.Mutex
	byStream map[string]map[*Watcher]struct{}
}

// signal wakes the watchers of these events' streams and those of the whole log. It never blocks.
func (ws *watchers) signal(events []entry) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if len(ws.byStream) == 0 {
		return
	}
	wake(ws.byStream[""])
	for _, e := range events {
		wake(ws.byStream[e.stream])
	}
}

func wake(set map[*Watcher]struct{}) {
	for w := range set {
		select {
		case w.c <- struct{}{}:
		default: // it has a signal that it hasn't taken yet
		}
	}
}
