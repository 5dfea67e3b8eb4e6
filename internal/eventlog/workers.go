package eventlog

// maxIdle bounds the goroutines that wait for the next call.
const maxIdle = 128

// workers run calls, each on a goroutine of its own. One that has run a call before is taken where one is idle: its stack
// has grown to what the client needs, which for a new one takes longer than some calls.
type workers struct {
	calls  chan func()   // has no room: a call is taken by a goroutine that is idle, or by none
	idle   chan struct{} // has an element for each goroutine that is idle
	closed chan struct{}
}

func newWorkers() *workers {
	return &workers{calls: make(chan func()), idle: make(chan struct{}, maxIdle), closed: make(chan struct{})}
}

// run has a call run, and does not wait for it.
func (w *workers) run(call func()) {
	select {
	case w.calls <- call:
	default:
		go w.work(call)
	}
}

func (w *workers) work(call func()) {
	for {
		call()
		select {
		case w.idle <- struct{}{}:
		default:
			return
		}
		select {
		case call = <-w.calls:
			<-w.idle
		case <-w.closed:
			return
		}
	}
}

// close ends the goroutines that are idle, and each of the others once its call has returned.
func (w *workers) close() { close(w.closed) }
