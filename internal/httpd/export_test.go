package httpd

import (
	"context"
	"net"
	"net/netip"

	"github.com/valyala/fasthttp"

	"sessiond/internal/config"
)

// ListenOn makes s serve what a test has bound, as if on loopback.
func ListenOn(ctx context.Context, s *Server, ln net.Listener) {
	s.take(ctx, bindings{{Listener: ln, service: "test", loopback: true}})
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

// Gate returns a function that lets a connection in from an address, if there is
// a place for it, and how to leave again.
func Gate(cfg *config.Config) func(from netip.Addr) (leave func(), admitted bool) {
	g := &gate{}
	return func(from netip.Addr) (func(), bool) {
		c := &conn{counted: from}
		refused := g.enter(c, cfg)
		return func() { g.leave(c) }, refused == accepted
	}
}
