package httpd

import (
	"context"
	"net"

	"github.com/valyala/fasthttp"
)

// ListenOn makes s serve what a test has bound, as if on loopback.
func ListenOn(ctx context.Context, s *Server, ln net.Listener) {
	s.take(ctx, []*listener{{Listener: ln, service: "test", loopback: true}})
}

var (
	ForwardedFor = forwardedFor
	CutPort      = cutPort
)

// Faults returns the body of every refusal.
func Faults() []string {
	var bodies []string
	for r := malformed; r < refusals; r++ {
		f := r.fault()
		bodies = append(bodies, string(appendFault(nil, f.code, f.message)))
	}
	return bodies
}

// Guarding returns a function that guards one request with the given header.
func Guarding(s *Server, header *fasthttp.RequestHeader) func() bool {
	c := &conn{listener: &listener{loopback: true}}
	cfg := s.options.Holder.Get()
	return func() bool {
		_, refused := s.guard(header, &c.head, c, cfg)
		return refused == accepted
	}
}
