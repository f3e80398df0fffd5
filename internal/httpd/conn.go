package httpd

import (
	"bytes"
	"crypto/subtle"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"sessiond/internal/api"
	"sessiond/internal/config"
)

// States of a connection. Only Shutdown moves one to closing, and only from
// fresh or idle; a connection that has delivered a byte of a request is active
// until the answer is sent.
const (
	fresh int32 = iota
	active
	idle
	closing
)

// conn is an accepted connection, below TLS. But for state and linger, which
// Shutdown shares, its fields belong to the goroutine that serves it.
type conn struct {
	net.Conn

	listener *listener
	gate     *gate
	address  netip.Addr // the peer's, unmapped and without a zone
	counted  netip.Addr // what it counts against; zero for nothing

	state  atomic.Int32
	linger atomic.Bool
	close  sync.Once

	reading, writing deadline
	unsent           int64 // how much of gate.unsent is its answer's

	head         head
	request      api.Request
	lastToken    []byte // of the last request, so that the next needs no copy
	lastRawAgent []byte
	lastBearer   api.Secret
	lastAgent    string // valid UTF-8, unlike what came
	host         string // the last Host that was taken, under hostConfig
	hostConfig   *config.Config
}

// connOf returns the connection that carries a request.
func connOf(ctx *fasthttp.RequestCtx) *conn { return unwrap(ctx.Conn()) }

func unwrap(nc net.Conn) *conn {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	c, _ := nc.(*conn) // every connection is made by admit
	return c
}

// Read gives no byte of a request to a connection that Shutdown is closing.
func (c *conn) Read(p []byte) (int, error) {
	if c.reading.isDue() {
		if err := c.Conn.SetReadDeadline(c.reading.set()); err != nil {
			return 0, err
		}
	}
	n, err := c.Conn.Read(p)
	if n > 0 && c.state.Load() != active &&
		!c.state.CompareAndSwap(idle, active) && !c.state.CompareAndSwap(fresh, active) {
		return 0, io.EOF
	}
	return n, err
}

// Write sends p.
func (c *conn) Write(p []byte) (int, error) {
	if c.writing.isDue() {
		if err := c.Conn.SetWriteDeadline(c.writing.set()); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}

// SetReadDeadline limits the Reads to come, not one that waits.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.reading.wanted = t
	return nil
}

// SetWriteDeadline limits the Writes to come, not one that waits.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.writing.wanted = t
	return nil
}

// SetDeadline limits the Reads and Writes to come, not those that wait.
func (c *conn) SetDeadline(t time.Time) error {
	c.reading.wanted, c.writing.wanted = t, t
	return nil
}

// deadline spares the timer: fasthttp sets three for each request, most of which
// nothing ever waits for, or which move the one before by a hair.
type deadline struct{ wanted, kept time.Time }

// slack is how much earlier than asked for a deadline may strike.
const slack = 200 * time.Millisecond

func (d *deadline) isDue() bool {
	later := d.wanted.Sub(d.kept)
	return later < 0 || later > slack
}

func (d *deadline) set() time.Time {
	d.kept = d.wanted
	return d.kept
}

// connState follows a connection through its requests.
func (s *Server) connState(nc net.Conn, state fasthttp.ConnState) {
	switch state { //nolint:exhaustive // the others say nothing new
	case fasthttp.StateActive: // a request that came together with the one before
		unwrap(nc).state.CompareAndSwap(idle, active)
	case fasthttp.StateIdle:
		c := unwrap(nc)
		c.hold(0)
		c.state.CompareAndSwap(active, idle)
	}
}

// allowWriting gives what is written before the body has been read the time that
// an answer has. Fasthttp leaves it the deadline of the answer before, which on a
// connection that has rested is over.
func (c *conn) allowWriting(timeout time.Duration) {
	if begun := c.reading.wanted; !begun.IsZero() {
		c.writing.wanted = begun.Add(timeout)
	}
}

// closeAfter makes the answer in ctx the connection's last, and sees to it that
// it arrives.
func (c *conn) closeAfter(ctx *fasthttp.RequestCtx) {
	ctx.Response.SetConnectionClose()
	c.linger.Store(true)
}

// Closing a socket with unread input makes the kernel send a reset, which can
// overtake and destroy the answer on its way. So the connection says that it is
// done, and what still comes is thrown away for a while.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 16 << 20
)

// Close ends the connection, once its last answer has had the chance to arrive.
func (c *conn) Close() error {
	var err error
	c.close.Do(func() {
		c.hold(0)
		if c.linger.Load() {
			c.discardInput()
		}
		err = c.Conn.Close()
		c.gate.leave(c)
	})
	return err
}

// awaitInput waits, not for long, for the first that a client sends: one that is
// answered before it has asked takes the answer for a stray one.
func (c *conn) awaitInput() {
	past := time.Unix(1, 0)
	timer := time.AfterFunc(lingerTime, func() { _ = c.Conn.SetReadDeadline(past) })
	defer timer.Stop()
	_, _ = c.Conn.Read(make([]byte, 4<<10)) // whatever it is, the answer is the same
}

func (c *conn) discardInput() {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || c.Conn.SetReadDeadline(time.Time{}) != nil {
		return
	}
	past := time.Unix(1, 0)
	timer := time.AfterFunc(lingerTime, func() { _ = c.Conn.SetReadDeadline(past) })
	defer timer.Stop()
	buffer := make([]byte, 2<<10) // there may be thousands at once
	for total := 0; total < lingerBytes; {
		n, err := c.Conn.Read(buffer)
		if err != nil {
			return
		}
		total += n
	}
}

// bearer returns the token of the Authorization header; whatever follows the
// scheme is one, and its shape is not judged here. Other schemes are none.
func (c *conn) bearer() api.Secret {
	const scheme = "bearer"
	a := c.head.authorization
	if len(a) <= len(scheme) || a[len(scheme)] != ' ' || !is(a[:len(scheme)], scheme) {
		return api.Secret{}
	}
	token := trim(a[len(scheme):])
	if subtle.ConstantTimeCompare(token, c.lastToken) == 0 {
		c.lastToken = append(c.lastToken[:0], token...)
		c.lastBearer = api.NewSecret(string(token))
	}
	return c.lastBearer
}

const maxUserAgent = 512

func (c *conn) userAgent() string {
	agent := c.head.userAgent
	if len(agent) > maxUserAgent {
		agent = agent[:maxUserAgent]
	}
	if !bytes.Equal(agent, c.lastRawAgent) {
		c.lastRawAgent = append(c.lastRawAgent[:0], agent...)
		c.lastAgent = strings.ToValidUTF8(string(agent), "") // what the cut has left of a character too
	}
	return c.lastAgent
}

// clientAddress returns who is behind the connection.
func (c *conn) clientAddress(cfg *config.Config, raw []byte) netip.Addr {
	if len(cfg.TrustedProxies) == 0 || !isTrusted(c.address, cfg.TrustedProxies) {
		return c.address
	}
	return forwardedFor(c.address, cfg.TrustedProxies, cfg.ForwardedHeader, raw)
}
