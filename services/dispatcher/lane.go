package dispatcher

import "sync"

// lane runs functions beside one another, a bounded number at a time. Each
// must end in bounded time: a full lane makes its callers wait.
type lane struct {
	slots chan struct{}
	wg    sync.WaitGroup
}

func newLane(n int) *lane { return &lane{slots: make(chan struct{}, n)} }

// run starts f, once there is room for it.
func (l *lane) run(f func()) {
	l.slots <- struct{}{}
	l.wg.Go(func() {
		defer func() { <-l.slots }()
		f()
	})
}

// wait returns when all have ended. No run may be called any more.
func (l *lane) wait() { l.wg.Wait() }
