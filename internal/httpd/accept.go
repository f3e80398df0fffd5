package httpd

import (
	"crypto/tls"
	"errors"
	"iter"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sessiond/internal/config"
	"sessiond/internal/logging"
	"sessiond/internal/network"
)

// accept takes connections until the listener is closed. Whatever
// else goes wrong, no file descriptors above all, passes when something closes,
// so it waits and tries again.
func (s *Server) accept(l *listener) {
	const shortest, longest = 5 * time.Millisecond, time.Second
	wait := time.Duration(0)
	for {
		nc, err := l.Accept()
		if err != nil {
			if s.draining.Load() || errors.Is(err, net.ErrClosed) {
				return
			}
			if wait == 0 {
				s.log.Error("accepting connections is paused", logging.Str("service", l.service), logging.Err(err))
			}
			wait = min(max(2*wait, shortest), longest)
			select {
			case <-time.After(wait):
			case <-s.stopping:
				return
			}
			continue
		}
		if wait != 0 {
			s.log.Info("accepting connections again", logging.Str("service", l.service))
			wait = 0
		}
		s.admit(l, nc)
	}
}

// sendBuffer is how much of the answers to a client that does not read the kernel
// keeps. It would let that grow to megabytes for each, until it runs out of memory
// for the connections of everybody.
const sendBuffer = 128 << 10

// admit serves a connection, or refuses it at once if there are too many.
func (s *Server) admit(l *listener, nc net.Conn) {
	cfg := s.options.Holder.Get()
	if tcp, ok := nc.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(sendBuffer) // one that fails is closed already
	}
	c := &conn{Conn: nc, listener: l, gate: &s.gate, address: addressOf(nc.RemoteAddr())}
	if c.address.IsValid() && !isTrusted(c.address, cfg.TrustedProxies) {
		c.counted = c.address
	}
	if l.paused.Load() {
		s.turnAway(c, listenerPaused)
		return
	}
	if refused := s.gate.enter(c, cfg); refused != accepted {
		s.turnAway(c, refused)
		return
	}
	var served net.Conn = c
	if l.secure {
		served = tls.Server(c, l.tls.Load())
	}
	s.serving.Go(func() {
		if err := s.http.ServeConn(served); !isGone(err) {
			s.log.Debug("connection failed", logging.Str("service", l.service), logging.Err(err))
		}
	})
}

// turnAway tells a client in plain text why it is not served, as long as few
// others are being told; under TLS that would cost a handshake.
func (s *Server) turnAway(c *conn, r refusal) {
	if c.listener.secure || !s.gate.beginTelling() {
		_ = c.Conn.Close()
		return
	}
	s.serving.Go(func() {
		defer s.gate.endTelling()
		f := r.fault()
		body := appendFault(nil, f.code, f.message)
		answer := "HTTP/1.1 429 Too Many Requests"
		if f.status == 503 {
			answer = "HTTP/1.1 503 Service Unavailable"
		}
		answer += "\r\nConnection: close\r\nRetry-After: 1\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff" +
			"\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + string(body)
		c.awaitInput()
		if _, err := c.Conn.Write([]byte(answer)); err == nil { // fits the empty send buffer, so it does not block
			c.discardInput()
		}
		_ = c.Conn.Close()
	})
}

// gate counts the connections, in all and by the networks of their addresses. The
// zero gate is ready.
type gate struct {
	mu        sync.Mutex
	conns     map[*conn]struct{}
	byNetwork map[netip.Prefix]int
	telling   int
	shut      bool
	capacity  int // what the process has file descriptors for; 0 unknown

	unsent atomic.Int64 // bytes of answers beyond keptBody that are being made or sent
}

// maxTelling is how many clients are told at a time that they are not served.
const maxTelling = 16

func (g *gate) enter(c *conn, cfg *config.Config) refusal {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return serverStops
	}
	most := cfg.MaxConnections
	if g.capacity > 0 && (most == 0 || g.capacity < most) {
		most = g.capacity
	}
	if most > 0 && len(g.conns) >= most {
		return serverFull
	}
	for within, times := range network.Bounds(c.counted) {
		if cfg.MaxConnectionsPerIP > 0 && g.byNetwork[within] >= times*cfg.MaxConnectionsPerIP {
			return addressFull
		}
	}
	if g.byNetwork == nil {
		g.byNetwork = make(map[netip.Prefix]int)
	}
	for within := range network.Bounds(c.counted) {
		g.byNetwork[within]++
	}
	if g.conns == nil {
		g.conns = make(map[*conn]struct{})
	}
	g.conns[c] = struct{}{}
	return accepted
}

func (g *gate) leave(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, in := g.conns[c]; !in {
		return
	}
	delete(g.conns, c)
	for within := range network.Bounds(c.counted) {
		if g.byNetwork[within]--; g.byNetwork[within] == 0 {
			delete(g.byNetwork, within)
		}
	}
}

// lock admits nobody any more.
func (g *gate) lock() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
}

func (g *gate) beginTelling() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.telling == maxTelling {
		return false
	}
	g.telling++
	return true
}

func (g *gate) endTelling() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.telling--
}

// size counts the connections of a listener, or all of them; nil stands for every
// listener here and below.
func (g *gate) size(of *listener) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if of == nil {
		return len(g.conns)
	}
	n := 0
	for range g.of(of) {
		n++
	}
	return n
}

// of returns the connections of a listener; the lock is held.
func (g *gate) of(l *listener) iter.Seq[*conn] {
	return func(yield func(*conn) bool) {
		for c := range g.conns {
			if (l == nil || c.listener == l) && !yield(c) {
				return
			}
		}
	}
}

// closeResting closes the connections that wait for a request in one of the
// given states.
func (g *gate) closeResting(of *listener, states ...int32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.of(of) {
		for _, state := range states {
			if c.state.CompareAndSwap(state, closing) {
				_ = c.Conn.Close() // its goroutine wakes up and leaves
			}
		}
	}
}

// cut closes every connection, whatever it does, and returns how many.
func (g *gate) cut(of *listener) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for c := range g.of(of) {
		_ = c.Conn.Close()
		n++
	}
	return n
}
