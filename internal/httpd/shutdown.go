package httpd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sessiond/internal/logging"
)

// Serve takes requests on what Listen has bound. It returns when Shutdown has
// ended the last of them.
func (s *Server) Serve() error {
	if len(s.listeners) == 0 {
		return errors.New("httpd: Serve before Listen")
	}
	for _, l := range s.listeners {
		s.serving.Go(func() { s.accept(l) })
	}
	s.serving.Wait()
	return nil
}

// backlogTime is how long connections are still accepted once Shutdown has begun.
const backlogTime = 20 * time.Millisecond

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
	// The kernel resets what it has accepted and we have not, so that is taken in first.
	select {
	case <-time.After(backlogTime):
	case <-ctx.Done():
	}
	s.gate.lock()
	for _, l := range s.listeners {
		if err := l.Close(); err != nil {
			s.log.Warn("a listener did not close", logging.Str("service", l.service), logging.Err(err))
		}
	}
	if s.cancel != nil {
		defer s.cancel()
	}
	if s.drained(ctx, s.options.Holder.Get().DrainTimeout.Duration()) {
		return nil
	}
	if s.cancel != nil {
		s.cancel()
	}
	if n := s.gate.cut(); n > 0 {
		return fmt.Errorf("httpd: %d connections were not done in time and have been cut", n)
	}
	return nil
}

// drained waits until no connection is left, or reports that it was in vain.
func (s *Server) drained(ctx context.Context, limit time.Duration) bool {
	// A connection that was accepted a moment ago may have its first request on the way.
	const tick, freshTicks = 10 * time.Millisecond, 50
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for ticks := 0; ; ticks++ {
		s.gate.closeResting(idle)
		if ticks >= freshTicks {
			s.gate.closeResting(fresh)
		}
		if s.gate.size() == 0 {
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
