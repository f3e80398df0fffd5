package httpd

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Serve takes requests on what Listen has bound. It returns when Shutdown has
// ended the last of them.
func (s *Server) Serve() error {
	if len(s.bindings()) == 0 {
		return errors.New("httpd: Serve before Listen")
	}
	s.serving.Go(func() { <-s.stopping }) // while one listener is restarted, there may be none
	s.changing.Lock()
	for _, l := range s.bindings() {
		s.serving.Go(func() { s.accept(l) })
	}
	s.begun = true
	s.changing.Unlock()
	s.serving.Wait()
	return nil
}

// Shutdown ends the server: from its first moment /readyz refuses, and a moment
// later no connection is accepted; answers say Connection: close, connections without a
// request are closed, and what runs is finished and answered. What is not done
// after the configured DrainTimeout, or when ctx ends, is cut; then the error
// says how many connections that were. Only the first call does anything.
func (s *Server) Shutdown(ctx context.Context) error {
	if s.draining.Swap(true) {
		return nil
	}
	close(s.stopping)
	s.changing.Lock() // from here on no listener is opened
	var open bindings
	for _, l := range s.bindings() {
		if !l.retired.Swap(true) {
			open = append(open, l)
		}
	}
	s.changing.Unlock()
	open.close(ctx, s.log)
	s.gate.lock()
	if s.cancel != nil {
		defer s.cancel()
	}
	if s.drained(ctx, nil, s.options.Holder.Get().DrainTimeout.Duration()) {
		return nil
	}
	if s.cancel != nil {
		s.cancel()
	}
	if n := s.gate.cut(nil); n > 0 {
		return fmt.Errorf("httpd: %d connections were not done in time and have been cut", n)
	}
	return nil
}

// drained waits until no connection of a listener is left, or of all, or reports
// that it was in vain.
func (s *Server) drained(ctx context.Context, of *listener, limit time.Duration) bool {
	// A connection that was accepted a moment ago may have its first request on the way.
	const tick, freshTicks = 10 * time.Millisecond, 50
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for ticks := 0; ; ticks++ {
		s.gate.closeResting(of, idle)
		if ticks >= freshTicks {
			s.gate.closeResting(of, fresh)
		}
		if s.gate.size(of) == 0 {
			return true
		}
		select {
		case <-ticker.C:
		case <-deadline.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}
