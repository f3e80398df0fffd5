package httpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"sessiond/internal/config"
	"sessiond/internal/logging"
)

// listener is a port that is bound, or was. But for the last three, its fields do
// not change once it is.
type listener struct {
	net.Listener

	config     config.Listener // as it was bound
	service    string
	port       int
	name       string // the host name it was bound by, if it was a name
	loopback   bool
	everywhere bool // bound to all addresses
	secure     bool // speaks TLS

	tls     atomic.Pointer[tls.Config] // of the connections to come
	paused  atomic.Bool                // turns away whoever comes
	retired atomic.Bool                // its port is closed, or is about to be: answers are the last on their connections
}

// bindings are the listeners in the order in which they were bound, at most one of
// a service; retired ones stay until their service is bound again.
type bindings []*listener

// Listen binds every enabled listener, or none: an error names the first that
// could not be, and what to do. Without an address a listener is bound to
// loopback; plain HTTP elsewhere needs InsecureHTTP. Ctx bounds the binding, and
// its values, though not its end, reach the Handler.
func (s *Server) Listen(ctx context.Context, listeners []config.Listener) error {
	var bound bindings
	for _, l := range listeners {
		if !l.Enabled {
			continue
		}
		b, err := prepare(l)
		if err == nil {
			err = b.bind(ctx, s.options.Holder.Get().InsecureHTTP)
		}
		if err != nil {
			for _, b := range bound {
				_ = b.Close()
			}
			return err
		}
		bound = append(bound, b)
	}
	if len(bound) == 0 {
		return errors.New("no listener is enabled: set enabled on one of listeners in services.json, or pass --listen")
	}
	s.take(ctx, bound)
	return nil
}

// take prepares to serve what is bound.
func (s *Server) take(ctx context.Context, bound bindings) {
	s.listeners.Store(&bound)
	s.gate.capacity = descriptors()
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
}

// bindings returns the listeners as they are now.
func (s *Server) bindings() bindings {
	if all := s.listeners.Load(); all != nil {
		return *all
	}
	return nil
}

// Addrs returns the addresses that are bound, or were when Shutdown began, in the
// order of binding.
func (s *Server) Addrs() []net.Addr {
	var addrs []net.Addr
	for _, l := range s.bindings() {
		if s.draining.Load() || !l.retired.Load() {
			addrs = append(addrs, l.Addr())
		}
	}
	return addrs
}

// prepare returns a listener that bind can bind, with its certificate.
func prepare(l config.Listener) (*listener, error) {
	b := &listener{config: l, service: l.ServiceName, port: l.Port}
	if b.host() != "" && net.ParseIP(b.host()) == nil {
		b.name = b.host()
	}
	switch l.Protocol {
	case config.HTTP:
	case config.HTTPS:
		settings, err := settingsOf(l.ServiceName, l.TLS)
		if err != nil {
			return nil, err
		}
		b.secure = true
		b.tls.Store(settings)
	default:
		return nil, fmt.Errorf("listener %q: protocol must be http or https", l.ServiceName)
	}
	return b, nil
}

// host returns what to bind; empty is all addresses.
func (l *listener) host() string {
	switch l.config.Address {
	case "":
		return "127.0.0.1"
	case "*":
		return ""
	}
	return l.config.Address
}

// bind opens the port.
func (l *listener) bind(ctx context.Context, insecureHTTP bool) error {
	address := net.JoinHostPort(l.host(), strconv.Itoa(l.port))
	var err error
	if l.Listener, err = new(net.ListenConfig).Listen(ctx, "tcp", address); err != nil {
		return fmt.Errorf("listener %q cannot listen on %s: %w: %s", l.service, address, err, remedy(err))
	}
	if tcp, ok := l.Addr().(*net.TCPAddr); ok {
		l.port, l.loopback, l.everywhere = tcp.Port, tcp.IP.IsLoopback(), tcp.IP.IsUnspecified()
	}
	if err := l.exposed(insecureHTTP); err != nil {
		_ = l.Close()
		return err
	}
	return nil
}

// exposed returns what is wrong with a listener on which others could read along.
func (l *listener) exposed(insecureHTTP bool) error {
	if l.secure || l.loopback || insecureHTTP {
		return nil
	}
	return fmt.Errorf("listener %q: %s is reachable from other machines, where plain HTTP would show tokens to everybody on the way: "+
		"set protocol https with tls, or listen on 127.0.0.1, or pass --insecure-http if something in front adds TLS",
		l.service, net.JoinHostPort(l.host(), strconv.Itoa(l.port)))
}

// backlogTime is how long connections are still accepted once a port is to be
// closed.
const backlogTime = 20 * time.Millisecond

// close closes the port, or several at once. The kernel resets what it has accepted
// and we have not, so that is taken in first.
func (b bindings) close(ctx context.Context, log *logging.Logger) {
	select {
	case <-time.After(backlogTime):
	case <-ctx.Done():
	}
	for _, l := range b {
		if err := l.Close(); err != nil {
			log.Warn("a listener did not close", logging.Str("service", l.service), logging.Err(err))
		}
	}
}

// remedy says what to do about an error of binding.
func remedy(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "stop what listens there (perhaps another sessiond), or choose another port with --listen or in listeners"
	case errors.Is(err, syscall.EACCES):
		return "ports below 1024 need a privilege: choose a higher one"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this machine has no such address"
	}
	return "correct its address and port in listeners"
}

// settingsOf reads a certificate and its key. Each call returns settings of their
// own, and so with session tickets of their own: who has met another certificate
// cannot resume, but makes a whole handshake and sees this one.
func settingsOf(service string, files config.TLS) (*tls.Config, error) {
	key := files.KeyFile
	if key == "" {
		key = files.CertificateFile
	}
	pair, err := tls.LoadX509KeyPair(files.CertificateFile, key)
	if err != nil {
		return nil, fmt.Errorf("listener %q: certificate %s with key %s: %w", service, files.CertificateFile, key, err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{pair}}, nil
}
