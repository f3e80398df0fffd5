package bolt

import (
	"sync"
	"time"
)

const (
	slowAfter = time.Second      // a commit that takes longer is told of
	hangAfter = 10 * time.Second // one that takes longer is told of before it ends
	slowEvery = time.Minute      // at most once
)

// stopwatch times the commits. A machine's clock may be put forward, so a commit is
// slow only if a timer says so too. The zero stopwatch does nothing.
type stopwatch struct {
	now    func() time.Time
	report func(took time.Duration)
	timer  *time.Timer

	mu    sync.Mutex
	begun time.Time // of the commit under way; zero: there is none
	slow  bool      // it has taken longer than slowAfter
	hangs bool      // that was told
	told  time.Time // when one was told of last
}

// begin is called before each commit, end after it.
func (p *stopwatch) begin() {
	if p.now == nil || p.report == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun, p.slow, p.hangs = p.now(), false, false
	if p.timer == nil {
		p.timer = time.AfterFunc(slowAfter, p.fire)
	} else {
		p.timer.Reset(slowAfter)
	}
}

func (p *stopwatch) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begun.IsZero() {
		return
	}
	p.timer.Stop()
	if p.slow {
		p.tell(p.hangs)
	}
	p.begun = time.Time{}
}

// fire is the timer's.
func (p *stopwatch) fire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.begun.IsZero() || p.now().Sub(p.begun) < slowAfter: // it was too late to be stopped
	case !p.slow:
		p.slow = true
		p.timer.Reset(hangAfter - slowAfter)
	default:
		p.tell(false)
		p.hangs = true
		p.timer.Reset(slowEvery)
	}
}

// tell runs under mu.
func (p *stopwatch) tell(always bool) {
	now := p.now()
	if !always && !p.told.IsZero() && now.Sub(p.told) < slowEvery {
		return
	}
	p.told = now
	p.report(now.Sub(p.begun))
}
