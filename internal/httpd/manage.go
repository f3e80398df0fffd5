package httpd

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/logging"
)

// Listeners returns the listeners of the configuration in force, in its order, as
// they are now; after them those that are open although it has them no more.
func (s *Server) Listeners() []api.Listener {
	listed := s.options.Holder.Get().Listeners
	all := make([]api.Listener, 0, len(listed))
	bound := s.bindings()
	for i := range listed {
		all = append(all, s.view(bound.named(listed[i].ServiceName), &listed[i]))
	}
	for _, l := range bound {
		if l.state() != api.Stopped && entryOf(listed, l.service) == nil {
			all = append(all, s.view(l, nil))
		}
	}
	return all
}

func viewOf(c config.Listener) api.Listener {
	return api.Listener{
		ServiceName: c.ServiceName, Description: c.Description, Address: c.Address, Port: c.Port, Protocol: c.Protocol, Enabled: c.Enabled,
		State: api.Stopped, CertificateFile: c.TLS.CertificateFile, KeyFile: c.TLS.KeyFile,
	}
}

// view shows a service that is bound, or has an entry in the configuration, or both.
func (s *Server) view(l *listener, entry *config.Listener) api.Listener {
	if entry != nil && (l == nil || l.state() == api.Stopped) {
		return viewOf(*entry)
	}
	v := viewOf(l.config)
	v.Port, v.State, v.Connections, v.Enabled = l.port, l.state(), s.gate.size(l), entry != nil && entry.Enabled
	if settings := l.tls.Load(); settings != nil {
		if entry != nil && entry.Protocol == config.HTTPS {
			v.CertificateFile, v.KeyFile = entry.TLS.CertificateFile, entry.TLS.KeyFile
		}
		leaf := settings.Certificates[0].Leaf
		sum := sha256.Sum256(leaf.Raw)
		v.Certificate = &api.Certificate{
			Subject: leaf.Subject.String(), NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(), SHA256: hex.EncodeToString(sum[:]),
		}
	}
	return v
}

func (l *listener) state() api.ServiceState {
	switch {
	case l.retired.Load():
		return api.Stopped
	case l.paused.Load():
		return api.Paused
	}
	return api.Running
}

func (b bindings) named(service string) *listener {
	if i := slices.IndexFunc(b, func(l *listener) bool { return strings.EqualFold(l.service, service) }); i >= 0 {
		return b[i]
	}
	return nil
}

func entryOf(listed []config.Listener, service string) *config.Listener {
	if i := slices.IndexFunc(listed, func(c config.Listener) bool { return strings.EqualFold(c.ServiceName, service) }); i >= 0 {
		return &listed[i]
	}
	return nil
}

// Manage does a command to the listener of a service, which it returns as it is
// then, and whether anything has changed. A paused listener keeps its port and its
// connections and turns new ones away. Shutdown closes the port and, as the whole
// server does, each connection once it has no request; it does not wait for them.
// Startup binds the listener as the configuration in force has it, enabled or not;
// restart does so in place of what is open, which stays if that is impossible.
// What changes is recorded first, once nothing else can fail: if that does, nothing
// has changed. Other refusals are api.Errors: NotFound, or Conflict where the
// command does not fit the state, the port cannot be opened, or nothing would
// listen any more.
func (s *Server) Manage(ctx context.Context, service string, command api.ServiceCommand, record func() error) (api.Listener, bool, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	if s.draining.Load() {
		return api.Listener{}, false, api.Errorf(api.ShuttingDown, "the server is stopping: nothing was done")
	}
	l, entry := s.bindings().named(service), entryOf(s.options.Holder.Get().Listeners, service)
	state := api.Stopped
	if l != nil {
		state = l.state()
	}
	if entry == nil && state == api.Stopped {
		return api.Listener{}, false, api.Errorf(api.NotFound, "there is no such service: listServices shows which there are")
	}
	next, err := command.From(state)
	if err != nil {
		return api.Listener{}, false, err
	}
	changed := next != state || command == api.Restart
	switch opens := command == api.Startup || command == api.Restart; {
	case !changed:
	case opens:
		l, err = s.open(ctx, l, entry, record)
	case next != api.Running && s.isLast(l):
		err = api.Errorf(api.Conflict, "no listener would take connections any more: start or resume another one first, or stop the server")
	default:
		if err = record(); err != nil {
			break
		}
		if l.paused.Store(next == api.Paused); next == api.Stopped {
			s.retire(ctx, l)
		}
	}
	if err != nil {
		return api.Listener{}, false, err
	}
	return s.view(l, entry), changed, nil
}

// isLast reports whether l alone takes new connections.
func (s *Server) isLast(l *listener) bool {
	return l.state() == api.Running &&
		!slices.ContainsFunc(s.bindings(), func(other *listener) bool { return other != l && other.state() == api.Running })
}

// open binds a service, in place of what is open already, if anything is. That is
// given up last: only where both would have the same port, the old one must be
// closed before the new one can be tried, and little but the port can fail then.
func (s *Server) open(ctx context.Context, old *listener, entry *config.Listener, record func() error) (*listener, error) {
	isOpen := old != nil && old.state() != api.Stopped
	if entry == nil {
		entry = &old.config
	}
	fresh, err := prepare(*entry)
	if err != nil {
		return nil, refused(err)
	}
	insecure, samePort := s.options.Holder.Get().InsecureHTTP, false
	if isOpen && old.config.Address == entry.Address {
		if entry.Port == 0 {
			fresh.port = old.port
		}
		samePort = fresh.port == old.port
	}
	if samePort {
		fresh.loopback = old.loopback
		if err := fresh.exposed(insecure); err != nil {
			return nil, refused(err)
		}
		if err := record(); err != nil {
			return nil, err
		}
		s.retire(ctx, old)
	}
	if err := fresh.bind(ctx, insecure); err != nil {
		if samePort {
			err = fmt.Errorf("%w; it is stopped now", err)
		}
		return nil, refused(err)
	}
	if !samePort {
		if err := record(); err != nil {
			_ = fresh.Close()
			return nil, err
		}
	}
	bound := slices.DeleteFunc(slices.Clone(s.bindings()), func(l *listener) bool { return l == old })
	bound = append(bound, fresh)
	s.listeners.Store(&bound)
	if s.begun {
		s.serving.Go(func() { s.accept(fresh) })
	}
	if isOpen && !samePort {
		s.retire(ctx, old)
	}
	return fresh, nil
}

func refused(err error) error { return api.Errorf(api.Conflict, "%s", err.Error()).Because(err) }

// retire closes the port of a listener, and in the background its connections.
func (s *Server) retire(ctx context.Context, l *listener) {
	l.retired.Store(true)
	bindings{l}.close(ctx, s.log)
	s.serving.Go(func() {
		if s.drained(s.ctx, l, s.options.Holder.Get().DrainTimeout.Duration()) {
			return
		}
		if n := s.gate.cut(l); n > 0 {
			s.log.Warn("connections were not done in time and have been cut", logging.Str("service", l.service), logging.Int("connections", int64(n)))
		}
	})
}

// Reload puts another configuration in force, and with it the certificates that it
// names for the listeners that are open, read anew; both, or neither: an error says
// why nothing has changed. It is recorded first, once nothing else can fail. The
// notes name the listeners that are not as the configuration has them until Manage,
// or a start of the server, makes them so. Connections that are open keep what they
// have.
func (s *Server) Reload(changed *config.Config, record func() error) (notes []string, err error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	bound := s.bindings()
	fresh := make(map[*listener]*tls.Config)
	var errs []error
	for _, l := range bound {
		if l.state() == api.Stopped {
			continue
		}
		if err := l.exposed(changed.InsecureHTTP); err != nil {
			errs = append(errs, err)
		}
		files := l.config.TLS
		if entry := entryOf(changed.Listeners, l.service); entry != nil && entry.Protocol == config.HTTPS {
			files = entry.TLS
		}
		if l.secure {
			settings, err := settingsOf(l.service, files)
			errs, fresh[l] = append(errs, err), settings
		}
	}
	for _, entry := range changed.Listeners {
		l := bound.named(entry.ServiceName)
		isOpen := l != nil && l.state() != api.Stopped
		if entry.Enabled && entry.Protocol == config.HTTPS && (!isOpen || !l.secure) {
			_, err := settingsOf(entry.ServiceName, entry.TLS)
			errs = append(errs, err)
		}
		switch {
		case isOpen && !entry.Enabled:
			notes = append(notes, fmt.Sprintf("listener %q is disabled, and open: manageService shutdown closes it", entry.ServiceName))
		case isOpen && !l.isAs(entry):
			notes = append(notes, fmt.Sprintf("listener %q is open as it was before: manageService restart opens it anew", entry.ServiceName))
		case l == nil && entry.Enabled:
			notes = append(notes, fmt.Sprintf("listener %q is not open: manageService startup opens it", entry.ServiceName))
		}
	}
	for _, l := range bound {
		if l.state() != api.Stopped && entryOf(changed.Listeners, l.service) == nil {
			notes = append(notes, fmt.Sprintf("listener %q is no more in the file, and open: manageService shutdown closes it", l.service))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if err := record(); err != nil {
		return nil, err
	}
	s.options.Holder.Set(changed)
	for l, settings := range fresh {
		l.tls.Store(settings)
	}
	return notes, nil
}

// isAs reports whether a listener is open where an entry says, and speaks what it
// says.
func (l *listener) isAs(entry config.Listener) bool {
	return l.config.Address == entry.Address && l.config.Port == entry.Port && l.config.Protocol == entry.Protocol
}
