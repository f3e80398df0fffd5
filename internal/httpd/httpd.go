// Package httpd is the door: bytes from a socket in, a request for the
// dispatcher out, and its answer back. It wraps fasthttp and decides everything
// about a request that can be decided without reading its body.
//
// What it promises: every answer, refusals and fasthttp's own errors included,
// is JSON of the one shape; a refusal reaches a client that is still sending; one
// request on the wire is at most one call of the Handler; what a proxy and
// fasthttp might read differently is refused, and the connection closed; a call
// of the Handler that began before Shutdown is answered; running out of file
// descriptors pauses accepting and ends nothing; what large answers take until
// they are sent is bounded.
//
// How a connection goes: listen.go binds, accept.go admits, conn.go is the
// connection, head.go reads the header lines once, guard.go decides, serve below
// calls the Handler, unsent.go bounds what it makes, fault.go words the refusals, manage.go opens, closes and
// pauses listeners while all runs, shutdown.go ends it.
package httpd

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/valyala/fasthttp"

	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/logging"
)

// Handler answers requests; a dispatcher is one. Body and strings of r are valid
// until Serve returns. Answer.Body is dst, grown: it belongs to the transport
// afterwards. Status 0 means 200. Serve is called concurrently; ctx ends when the
// server stops waiting for what runs.
type Handler interface {
	Serve(ctx context.Context, r *api.Request, dst []byte) api.Answer
}

// Options are what a Server needs.
type Options struct {
	Holder  *config.Holder  // required; read once per request, but for what New and Listen say
	Log     *logging.Logger // nil writes nothing
	APIRoot string          // path of the endpoint; empty: the configuration's
	Ready   func() error    // what /readyz asks; nil means always ready
	About   []byte          // the text of GET /; nil: a text that names the endpoint
}

// Server takes requests on every listener it was given.
type Server struct {
	options  Options
	handler  Handler
	starting atomic.Pointer[string] // why there is no handler yet; nil: there is one
	log      *logging.Logger
	endpoint string
	about    []byte
	http     *fasthttp.Server

	changing  sync.Mutex // held by whoever opens or closes ports or reloads
	begun     bool       // Serve has begun; under changing
	listeners atomic.Pointer[bindings]
	gate      gate            // every open connection
	ctx       context.Context // of every call of the Handler
	cancel    context.CancelFunc
	serving   sync.WaitGroup // accept loops and connections
	draining  atomic.Bool    // the whole server; the listeners are retired then
	stopping  chan struct{}  // closed when draining begins
	names     names
}

// names are what every answer carries, in the form that costs least to set.
type names struct {
	cacheControl, noStore, typeOptions, noSniff []byte
	transportSecurity, always                   []byte
}

const (
	readBuffer  = 16 << 10 // and so the limit of a header
	writeBuffer = 4 << 10
	keptBody    = 16 << 10 // larger buffers are not kept by an idle connection
)

// New returns a server that calls h; with nil it turns requests away until Begin. The
// time limits of requests and idle connections, and APIRoot, are those of the
// configuration at this moment.
func New(o Options, h Handler) *Server {
	cfg := o.Holder.Get()
	s := &Server{options: o, handler: h, log: o.Log, endpoint: o.APIRoot, about: o.About, stopping: make(chan struct{})}
	s.names = names{
		[]byte(fasthttp.HeaderCacheControl), []byte("no-store"),
		[]byte(fasthttp.HeaderXContentTypeOptions), []byte("nosniff"),
		[]byte(fasthttp.HeaderStrictTransportSecurity), []byte("max-age=31536000"),
	}
	if h == nil {
		s.Starting("")
	}
	if s.endpoint == "" {
		s.endpoint = cfg.APIRoot
	}
	if s.about == nil {
		s.about = fmt.Appendf(nil, "sessiond, a session and API-key server.\n\nPOST JSON to %s, for example\n"+
			`{"api":"hub","action":"listActions"}`+"\n", s.endpoint)
	}
	s.http = &fasthttp.Server{
		Handler:                      s.handle,
		ErrorHandler:                 s.fail,
		HeaderReceived:               s.headerReceived,
		ExpectHandler:                s.expect,
		Logger:                       printer{s.log},
		ReadTimeout:                  cfg.RequestTimeout.Duration(),
		WriteTimeout:                 cfg.RequestTimeout.Duration(),
		IdleTimeout:                  cfg.IdleTimeout.Duration(),
		ReadBufferSize:               readBuffer,
		WriteBufferSize:              writeBuffer,
		MaxRequestBodySize:           cfg.MaxRequestBytes,
		ConnState:                    s.connState,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		DisablePreParseMultipartForm: true,
		SecureErrorLogMessage:        true,
	}
	return s
}

// Starting says how far the server is that Begin will open for requests; until then
// all but /healthz are answered with 503, 21901 and that text, in which nothing needs
// escaping in JSON. It is not called after Begin.
func (s *Server) Starting(stage string) {
	text := "the server is starting"
	if stage != "" {
		text += ": " + stage
	}
	s.starting.Store(&text)
}

// Begin has h answer requests from now on. It is called once, after New without a
// Handler.
func (s *Server) Begin(h Handler) {
	s.handler = h
	s.starting.Store(nil)
}

// handle is the way of one request whose body has been read.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	defer s.survive(ctx)
	c := connOf(ctx)
	if c.listener.retired.Load() {
		if c.state.Load() == closing {
			return // nobody can read the answer, so nothing is done
		}
		c.closeAfter(ctx)
	}
	cfg, starting := s.options.Holder.Get(), s.starting.Load()
	route, refused := s.guard(&ctx.Request.Header, &c.head, c, cfg)
	switch {
	case refused != accepted:
		s.refuse(ctx, c, cfg, refused)
	case route == routeHealth:
		s.write(ctx, cfg, fasthttp.StatusOK, healthy)
	case starting != nil:
		s.postpone(ctx, c, cfg, *starting)
	case route == routeEndpoint:
		s.serve(ctx, c, cfg)
	case route == routeReady:
		s.ready(ctx, cfg)
	case route == routeAbout:
		s.write(ctx, cfg, fasthttp.StatusOK, string(s.about))
		ctx.Response.Header.SetContentType("text/plain; charset=utf-8")
	case route == routePreflight:
		s.preflight(ctx, c, cfg)
	}
}

// serve hands the request to the dispatcher. The answer is written into the
// buffer that the connection sends from.
func (s *Server) serve(ctx *fasthttp.RequestCtx, c *conn, cfg *config.Config) {
	c.request = api.Request{
		Body:      ctx.Request.Body(),
		Bearer:    c.bearer(),
		Address:   c.clientAddress(cfg, ctx.Request.Header.RawHeaders()),
		UserAgent: c.userAgent(),
		Room:      c,
	}
	buffer := ctx.Response.SwapBody(nil)
	answer := s.handler.Serve(s.ctx, &c.request, buffer[:0])
	c.request = api.Request{}
	switch {
	case cap(answer.Body) <= keptBody:
		ctx.Response.SwapBody(answer.Body)
		c.hold(0)
	case len(answer.Body) <= keptBody: // what it had room for is not needed after all
		ctx.Response.SwapBody(append(buffer[:0], answer.Body...))
		c.hold(0)
	default:
		ctx.Response.SwapBody(buffer[:0])
		ctx.Response.SetBodyRaw(answer.Body)
		c.hold(cap(answer.Body))
	}
	ctx.Request.ReleaseBody(keptBody)
	if answer.Status != 0 {
		ctx.Response.SetStatusCode(answer.Status)
	}
	if answer.RetryAfterSeconds > 0 {
		var seconds [20]byte
		ctx.Response.Header.SetBytesV(fasthttp.HeaderRetryAfter, strconv.AppendInt(seconds[:0], answer.RetryAfterSeconds, 10))
	}
	s.setHeaders(ctx, c.head.origin, cfg)
}

// write answers with a text of our own.
func (s *Server) write(ctx *fasthttp.RequestCtx, cfg *config.Config, status int, body string) {
	ctx.Response.SetStatusCode(status)
	ctx.Response.SetBodyString(body)
	ctx.Response.SkipBody = ctx.Request.Header.IsHead()
	s.setHeaders(ctx, nil, cfg)
}

// setHeaders sets what every answer carries. That TLS is always to be used (RFC
// 6797) counts only where it comes over TLS. Origin is named only where pages of
// other origins may read the answer.
func (s *Server) setHeaders(ctx *fasthttp.RequestCtx, origin []byte, cfg *config.Config) {
	h := &ctx.Response.Header
	h.SetContentType("application/json; charset=utf-8")
	h.SetCanonical(s.names.cacheControl, s.names.noStore)
	h.SetCanonical(s.names.typeOptions, s.names.noSniff)
	if connOf(ctx).listener.secure {
		h.SetCanonical(s.names.transportSecurity, s.names.always)
	}
	if len(cfg.AllowedOrigins) == 0 {
		return
	}
	h.Set(fasthttp.HeaderVary, "Origin")
	if originAllowed(origin, cfg) {
		h.SetBytesV(fasthttp.HeaderAccessControlAllowOrigin, origin)
	}
}

// preflight lets a page of an allowed origin send its request.
func (s *Server) preflight(ctx *fasthttp.RequestCtx, c *conn, cfg *config.Config) {
	ctx.Response.SetStatusCode(fasthttp.StatusNoContent)
	s.setHeaders(ctx, c.head.origin, cfg)
	h := &ctx.Response.Header
	h.SetContentType("")
	h.Set(fasthttp.HeaderAccessControlAllowMethods, "POST")
	h.Set(fasthttp.HeaderAccessControlAllowHeaders, "Authorization, Content-Type")
	h.Set(fasthttp.HeaderAccessControlMaxAge, "600")
}

// postpone answers while the server is starting.
func (s *Server) postpone(ctx *fasthttp.RequestCtx, c *conn, cfg *config.Config, text string) {
	s.write(ctx, cfg, fasthttp.StatusServiceUnavailable, string(appendFault(nil, api.Overloaded, text)))
	s.setHeaders(ctx, c.head.origin, cfg)
	ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, "1")
}

// ready says whether this server should be sent requests.
func (s *Server) ready(ctx *fasthttp.RequestCtx, cfg *config.Config) {
	code := api.OK
	if s.draining.Load() {
		code = api.ShuttingDown
	} else if s.options.Ready != nil {
		if err := s.options.Ready(); err != nil {
			s.log.Debug("not ready", logging.Err(err))
			if code = api.FromError(err).Code; code == api.OK || code == api.Internal {
				code = api.Overloaded
			}
		}
	}
	if code == api.OK {
		s.write(ctx, cfg, fasthttp.StatusOK, healthy)
		return
	}
	ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, "1")
	s.write(ctx, cfg, fasthttp.StatusServiceUnavailable, string(appendFault(nil, code, notReady(code))))
}

// headerReceived runs before the body is read. A chunked body has no length to
// refuse by, and once reading it has failed its header is gone; so a request that
// would be refused anyway is given a length here that stops the reading.
func (s *Server) headerReceived(header *fasthttp.RequestHeader) fasthttp.RequestConfig {
	cfg := s.options.Holder.Get()
	if header.ContentLength() == -1 {
		var h head
		if _, refused := s.guard(header, &h, nil, cfg); refused != accepted {
			header.SetContentLength(cfg.MaxRequestBytes + 1)
		}
	}
	return fasthttp.RequestConfig{MaxRequestBodySize: cfg.MaxRequestBytes}
}

// expect decides whether a client that asks may send its body.
func (s *Server) expect(ctx *fasthttp.RequestCtx) int {
	c, cfg := connOf(ctx), s.options.Holder.Get()
	c.allowWriting(s.http.WriteTimeout)
	_, refused := s.guard(&ctx.Request.Header, &c.head, c, cfg)
	if refused == accepted && ctx.Request.Header.ContentLength() > cfg.MaxRequestBytes {
		refused = bodyTooLarge
	}
	if refused == accepted {
		return fasthttp.StatusContinue
	}
	c.closeAfter(ctx)
	s.refuse(ctx, c, cfg, refused)
	return ctx.Response.StatusCode()
}
