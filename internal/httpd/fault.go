package httpd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/valyala/fasthttp"

	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/logging"
)

// refusal is why a request goes no further.
type refusal uint8

const (
	accepted refusal = iota
	malformed
	foldedHeader
	tooManyHeaders
	duplicateHeader
	twoLengths
	badTarget
	badVersion
	missingHost
	headerTooLarge
	requestTimeout
	hasQuery
	crossSite
	noSuchPath
	wantsPost
	wantsGet
	lengthRequired
	bodyTooLarge
	wrongType
	wrongEncoding
	wrongHost
	addressFull
	serverFull
	serverStops
	listenerPaused
	panicked
	refusals // how many there are
)

// fault is how a refusal is told. Messages need no escaping in JSON.
type fault struct {
	status  int
	code    api.Code
	closes  bool // what follows on the connection cannot be trusted
	message string
}

func (r refusal) fault() fault {
	switch r {
	case malformed:
		return fault{400, api.BadEnvelope, true, "the HTTP request is malformed"}
	case foldedHeader:
		return fault{400, api.BadEnvelope, true, "a header line is continued on the next: write it as one"}
	case tooManyHeaders:
		return fault{400, api.BadEnvelope, true, "the request has more than 64 header lines"}
	case duplicateHeader:
		return fault{400, api.BadEnvelope, true, "a header that must be unique stands twice (Authorization, Content-Length, Content-Type, Host, Origin, Sec-Fetch-Site or Transfer-Encoding): send it once"}
	case twoLengths:
		return fault{400, api.BadEnvelope, true, "the request has both Content-Length and Transfer-Encoding: send one"}
	case badTarget:
		return fault{400, api.BadEnvelope, true, "the request target must be a path that begins with /"}
	case badVersion:
		return fault{400, api.BadEnvelope, true, "only HTTP/1.1 and HTTP/1.0 are spoken here"}
	case missingHost:
		return fault{400, api.BadEnvelope, true, "the request has no Host"}
	case headerTooLarge:
		return fault{431, api.TooLarge, true, "the request's header is larger than 16 KiB"}
	case requestTimeout:
		return fault{408, api.BadEnvelope, true, "the request did not arrive in time"}
	case hasQuery:
		return fault{400, api.BadEnvelope, false, "the endpoint takes no query string: parameters and tokens travel in the body, as URLs end up in logs"}
	case crossSite:
		return fault{403, api.PermissionDenied, false, "a page of another origin may not send this request: name its origin in allowedOrigins if it should"}
	case noSuchPath:
		return fault{404, api.BadEnvelope, false, "there is nothing at this path: GET / tells where the endpoint is"}
	case wantsPost:
		return fault{405, api.BadEnvelope, false, "the endpoint takes POST only"}
	case wantsGet:
		return fault{405, api.BadEnvelope, false, "this path takes GET and HEAD only"}
	case lengthRequired:
		return fault{411, api.BadEnvelope, false, "the request has neither a Content-Length nor a chunked body"}
	case bodyTooLarge:
		return fault{413, api.TooLarge, true, "the request's body is larger than maxRequestBytes"}
	case wrongType:
		return fault{415, api.BadEnvelope, false, "the body must be JSON: send it with Content-Type: application/json"}
	case wrongEncoding:
		return fault{415, api.BadEnvelope, false, "compressed bodies are not read: send it without Content-Encoding"}
	case wrongHost:
		return fault{421, api.BadEnvelope, false, "this server does not go by the name in Host: call it by its address, or name it in allowedHosts"}
	case addressFull:
		return fault{429, api.RateLimited, true, "too many connections from this address"}
	case serverFull:
		return fault{503, api.Overloaded, true, "the server has as many connections as it takes: repeat after Retry-After"}
	case serverStops:
		return fault{503, api.ShuttingDown, true, "the server is stopping: repeat elsewhere or later"}
	case listenerPaused:
		return fault{503, api.ShuttingDown, true, "an operator has paused this listener: repeat elsewhere or later"}
	case accepted, panicked, refusals:
	}
	return fault{500, api.Internal, true, "the server failed; its log says why"}
}

// allow returns the value of the Allow header that goes with a refusal.
func (r refusal) allow() string {
	switch r { //nolint:exhaustive // two of them are about methods
	case wantsPost:
		return "POST"
	case wantsGet:
		return "GET, HEAD"
	}
	return ""
}

const healthy = `{"result":{"status":"ok"},"errorCode":0,"errorMessage":""}`

// appendFault appends the body of a refusal. Message holds nothing that JSON
// would escape.
func appendFault(dst []byte, code api.Code, message string) []byte {
	dst = append(dst, `{"result":{},"errorCode":`...)
	dst = strconv.AppendInt(dst, int64(code), 10)
	dst = append(dst, `,"errorMessage":"`...)
	dst = append(dst, message...)
	return append(dst, `"}`...)
}

// notReady words why /readyz refuses, without what only the log may know.
func notReady(code api.Code) string {
	switch code { //nolint:exhaustive // the others are one
	case api.ShuttingDown:
		return "the server is stopping"
	case api.StorageFull:
		return "the storage is full"
	case api.StorageFailed:
		return "the storage has failed and writing has stopped; its log says why"
	}
	return "the server is not ready yet"
}

// refuse answers with a refusal and says so in the log.
func (s *Server) refuse(ctx *fasthttp.RequestCtx, c *conn, cfg *config.Config, r refusal) {
	f := r.fault()
	s.write(ctx, cfg, f.status, "")
	ctx.Response.SwapBody(appendFault(ctx.Response.SwapBody(nil)[:0], f.code, f.message))
	if origin := c.head.origin; originAllowed(origin, cfg) {
		ctx.Response.Header.SetBytesV(fasthttp.HeaderAccessControlAllowOrigin, origin)
	}
	if allow := r.allow(); allow != "" {
		ctx.Response.Header.Set(fasthttp.HeaderAllow, allow)
	}
	if f.status == fasthttp.StatusServiceUnavailable || f.status == fasthttp.StatusTooManyRequests {
		ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, "1")
	}
	if f.closes {
		c.closeAfter(ctx)
	}
	s.log.Info("request refused", logging.Int("status", f.status), logging.Int("code", f.code),
		logging.Str("reason", f.message), logging.Str("address", c.address.String()))
}

// fail answers what fasthttp could not read. It closes the connection afterwards.
func (s *Server) fail(ctx *fasthttp.RequestCtx, err error) {
	c, cfg := connOf(ctx), s.options.Holder.Get()
	c.allowWriting(s.http.WriteTimeout)
	c.closeAfter(ctx)
	s.refuse(ctx, c, cfg, s.reason(ctx, c, cfg, err))
}

func (s *Server) reason(ctx *fasthttp.RequestCtx, c *conn, cfg *config.Config, err error) refusal {
	c.head = head{}
	if errors.Is(err, fasthttp.ErrBodyTooLarge) {
		// The header is gone once reading a chunked body has begun.
		if len(ctx.Request.Header.RawHeaders()) > 0 {
			if _, refused := s.guard(&ctx.Request.Header, &c.head, c, cfg); refused != accepted {
				return refused
			}
		}
		return bodyTooLarge
	}
	if _, ok := errors.AsType[*fasthttp.ErrSmallBuffer](err); ok {
		return headerTooLarge
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return requestTimeout
	}
	return malformed
}

// survive is the last resort for a panic that the Handler did not recover.
func (s *Server) survive(ctx *fasthttp.RequestCtx) {
	v := recover()
	if v == nil {
		return
	}
	s.log.Error("request panicked", logging.Err(logging.Panicked(v)))
	ctx.Response.Reset()
	s.refuse(ctx, connOf(ctx), s.options.Holder.Get(), panicked)
}

// printer gives fasthttp's own remarks to the log.
type printer struct{ log *logging.Logger }

func (p printer) Printf(format string, args ...any) {
	p.log.Debug("http", logging.Str("remark", fmt.Sprintf(format, args...)))
}

// isGone reports whether a connection ended in a way that is nobody's fault.
func isGone(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || ok && timeout.Timeout()
}
