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

	"sessiond/internal/config"
)

// listener is a bound port. Its fields do not change, but for the certificate.
type listener struct {
	net.Listener

	service     string
	name        string // the host name it was bound by, if it was a name
	loopback    bool
	everywhere  bool // bound to all addresses
	tls         *tls.Config
	files       config.TLS
	certificate atomic.Pointer[tls.Certificate]
}

// Listen binds every enabled listener, or none: an error names the first that
// could not be, and what to do. Without an address a listener is bound to
// loopback; plain HTTP elsewhere needs InsecureHTTP. Ctx bounds the binding, and
// its values, though not its end, reach the Handler.
func (s *Server) Listen(ctx context.Context, listeners []config.Listener) error {
	var bound []*listener
	for _, l := range listeners {
		if !l.Enabled {
			continue
		}
		b, err := bind(ctx, l, s.options.Holder.Get().InsecureHTTP)
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

// take makes s serve what has been bound.
func (s *Server) take(ctx context.Context, bound []*listener) {
	s.listeners = bound
	s.gate.capacity = descriptors()
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
}

// Addrs returns the addresses that Listen has bound, in the order of the
// listeners that were enabled.
func (s *Server) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(s.listeners))
	for i, l := range s.listeners {
		addrs[i] = l.Addr()
	}
	return addrs
}

// ReloadCertificates reads the certificate files of every https listener again.
// New connections get the new ones; a listener whose files cannot be read keeps
// what it has, and the error says so.
func (s *Server) ReloadCertificates() error {
	var errs []error
	for _, l := range s.listeners {
		if l.tls != nil {
			errs = append(errs, l.loadCertificate())
		}
	}
	return errors.Join(errs...)
}

func bind(ctx context.Context, l config.Listener, insecureHTTP bool) (*listener, error) {
	host := l.Address
	switch host {
	case "":
		host = "127.0.0.1"
	case "*":
		host = ""
	}
	b := &listener{service: l.ServiceName, files: l.TLS}
	if net.ParseIP(host) == nil {
		b.name = host
	}
	switch l.Protocol {
	case "http":
	case "https":
		if err := b.loadCertificate(); err != nil {
			return nil, err
		}
		b.tls = &tls.Config{
			MinVersion: tls.VersionTLS12,
			NextProtos: []string{"http/1.1"},
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return b.certificate.Load(), nil
			},
		}
	default:
		return nil, fmt.Errorf("listener %q: protocol must be http or https", l.ServiceName)
	}
	address := net.JoinHostPort(host, strconv.Itoa(l.Port))
	var err error
	if b.Listener, err = new(net.ListenConfig).Listen(ctx, "tcp", address); err != nil {
		return nil, fmt.Errorf("listener %q cannot listen on %s: %w: %s", l.ServiceName, address, err, remedy(err))
	}
	if tcp, ok := b.Addr().(*net.TCPAddr); ok {
		b.loopback, b.everywhere = tcp.IP.IsLoopback(), tcp.IP.IsUnspecified()
	}
	if b.tls == nil && !b.loopback && !insecureHTTP {
		_ = b.Close()
		return nil, fmt.Errorf("listener %q: %s is reachable from other machines, where plain HTTP would show tokens to everybody on the way: "+
			"set protocol https with tls, or listen on 127.0.0.1, or pass --insecure-http if something in front adds TLS", l.ServiceName, address)
	}
	return b, nil
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

func (l *listener) loadCertificate() error {
	key := l.files.KeyFile
	if key == "" {
		key = l.files.CertificateFile
	}
	pair, err := tls.LoadX509KeyPair(l.files.CertificateFile, key)
	if err != nil {
		return fmt.Errorf("listener %q: certificate %s with key %s: %w", l.service, l.files.CertificateFile, key, err)
	}
	l.certificate.Store(&pair)
	return nil
}
