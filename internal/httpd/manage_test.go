package httpd_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/httpd"
)

// What a command makes of a listener in each state, beside another that runs.
func TestManage(t *testing.T) {
	const running, paused, stopped = api.Running, api.Paused, api.Stopped
	reach := map[api.ServiceState]api.ServiceCommand{paused: api.Pause, stopped: api.Shutdown}
	for _, c := range []struct {
		from    api.ServiceState
		command api.ServiceCommand
		to      api.ServiceState
		changed bool
		code    api.Code
	}{
		{running, api.Pause, paused, true, 0},
		{running, api.Resume, running, false, 0},
		{running, api.Shutdown, stopped, true, 0},
		{running, api.Startup, running, false, 0},
		{running, api.Restart, running, true, 0},
		{paused, api.Pause, paused, false, 0},
		{paused, api.Resume, running, true, 0},
		{paused, api.Shutdown, stopped, true, 0},
		{paused, api.Startup, paused, false, api.Conflict},
		{paused, api.Restart, running, true, 0},
		{stopped, api.Pause, stopped, false, api.Conflict},
		{stopped, api.Resume, stopped, false, api.Conflict},
		{stopped, api.Shutdown, stopped, false, 0},
		{stopped, api.Startup, running, true, 0},
		{stopped, api.Restart, running, true, 0},
	} {
		t.Run(string(c.from)+" "+string(c.command), func(t *testing.T) {
			s := startTwo(t)
			if c.from != running {
				s.manage(t, "second", reach[c.from])
			}
			l, changed, err := s.Manage(t.Context(), "SECOND", c.command, recorded)
			if code(err) != c.code || changed != c.changed || err == nil && l.State != c.to {
				t.Errorf("%s, changed %t, %v; want %s, changed %t, code %d", l.State, changed, err, c.to, c.changed, c.code)
			}
			now := s.Listeners()[1]
			if now.State != c.to {
				t.Errorf("it is %s then, want %s", now.State, c.to)
			}
			if got := answers(t, now.Port); got != c.to {
				t.Errorf("who comes finds it %s, want %s", got, c.to)
			}
		})
	}
}

func TestManageRefuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed below
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	port := taken.Addr().(*net.TCPAddr).Port
	for _, c := range []struct {
		name    string
		before  []api.ServiceCommand // done to the second listener first
		service string
		command api.ServiceCommand
		change  func(*config.Config) // reloaded before the command
		code    api.Code
		want    string
	}{
		{"an unknown service", nil, "third", api.Pause, nil, api.NotFound, "listServices"},
		{"pausing the last", []api.ServiceCommand{api.Shutdown}, "main", api.Pause, nil, api.Conflict, "no listener would take connections"},
		{"stopping the last", []api.ServiceCommand{api.Pause}, "main", api.Shutdown, nil, api.Conflict, "no listener would take connections"},
		{"starting on a port in use", []api.ServiceCommand{api.Shutdown}, "second", api.Startup, func(c *config.Config) {
			c.Listeners[1].Port = port
		}, api.Conflict, "in use"},
		{"moving to a port in use", nil, "main", api.Restart, func(c *config.Config) { c.Listeners[0].Port = port }, api.Conflict, "in use"},
		{"moving into the clear beyond loopback", nil, "main", api.Restart, func(c *config.Config) {
			c.Listeners[0].Address = "0.0.0.0"
		}, api.Conflict, "--insecure-http"},
		{"starting in the clear beyond loopback", []api.ServiceCommand{api.Shutdown}, "second", api.Startup, func(c *config.Config) {
			c.Listeners[1].Address = "0.0.0.0"
		}, api.Conflict, "--insecure-http"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startTwo(t)
			for _, command := range c.before {
				s.manage(t, "second", command)
			}
			if c.change != nil {
				changed := *s.holder.Get()
				changed.Listeners = append([]config.Listener(nil), changed.Listeners...)
				c.change(&changed)
				if _, err := s.Reload(&changed, recorded); err != nil {
					t.Fatal(err)
				}
			}
			before := s.Listeners()
			_, changed, err := s.Manage(t.Context(), c.service, c.command, recorded)
			if code(err) != c.code || changed || !strings.Contains(err.Error(), c.want) {
				t.Errorf("changed %t, %v; want %q", changed, err, c.want)
			}
			if d := cmp.Diff(before, s.Listeners()); d != "" {
				t.Errorf("something has changed (-before +after):\n%s", d)
			}
			if got := answers(t, s.Addrs()[0].(*net.TCPAddr).Port); got != api.Running {
				t.Errorf("who comes to the first finds it %s", got)
			}
		})
	}
}

// What cannot be recorded is not done; what changes nothing is not recorded.
func TestManageRecordsFirst(t *testing.T) {
	lost := errors.New("no room for an event")
	for _, c := range []struct {
		service string
		command api.ServiceCommand
		before  []api.ServiceCommand
		records bool
	}{
		{"second", api.Pause, nil, true},
		{"second", api.Shutdown, nil, true},
		{"second", api.Restart, nil, true},
		{"second", api.Startup, []api.ServiceCommand{api.Shutdown}, true},
		{"second", api.Resume, []api.ServiceCommand{api.Pause}, true},
		{"second", api.Startup, nil, false},
		{"second", api.Resume, nil, false},
		{"second", api.Pause, []api.ServiceCommand{api.Pause}, false},
		{"second", api.Pause, []api.ServiceCommand{api.Shutdown}, false},
		{"main", api.Shutdown, []api.ServiceCommand{api.Pause}, false},
		{"third", api.Shutdown, nil, false},
	} {
		t.Run(fmt.Sprint(c.service, " ", c.command, " after ", c.before), func(t *testing.T) {
			s := startTwo(t)
			for _, command := range c.before {
				s.manage(t, "second", command)
			}
			before, called := s.Listeners(), 0
			_, changed, err := s.Manage(t.Context(), c.service, c.command, func() error { called++; return lost })
			if changed || (called == 1) != c.records || errors.Is(err, lost) != c.records {
				t.Errorf("recorded %d times, changed %t, %v", called, changed, err)
			}
			if d := cmp.Diff(before, s.Listeners()); d != "" {
				t.Errorf("something has changed (-before +after):\n%s", d)
			}
		})
	}
	t.Run("reload", func(t *testing.T) {
		s := startTLS(t)
		before := s.holder.Get()
		changed := *before
		writeCertificate(t, s.file, 2, s.roots)
		if _, err := s.Reload(&changed, func() error { return lost }); !errors.Is(err, lost) || s.holder.Get() != before || s.serial(t) != 1 {
			t.Errorf("Reload returned %v", err)
		}
	})
}

// A pause touches nobody who is connected.
func TestPauseLeavesWhatIsOpen(t *testing.T) {
	s := startTwo(t)
	nc := s.dialSecond(t)
	r := bufio.NewReader(nc)
	for i := range 3 {
		if i == 1 {
			s.manage(t, "second", api.Pause)
		}
		send(t, nc, "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
		if got := receive(t, r, "POST"); got.status != 200 || got.header.Get("Connection") == "close" {
			t.Errorf("request %d: %d, Connection %q", i+1, got.status, got.header.Get("Connection"))
		}
	}
	if got := answers(t, s.second()); got != api.Paused {
		t.Errorf("who comes finds it %s", got)
	}
	s.manage(t, "second", api.Resume)
	if got := answers(t, s.second()); got != api.Running {
		t.Errorf("after the end of the pause who comes finds it %s", got)
	}
}

// A shutdown ends resting connections, and others with what they have asked; those
// of other listeners it leaves.
func TestShutdownOfAListenerFinishesWhatRuns(t *testing.T) {
	for _, command := range []api.ServiceCommand{api.Shutdown, api.Restart} {
		t.Run(string(command), func(t *testing.T) {
			begun, finish := make(chan struct{}), make(chan struct{})
			s := startTwoWith(t, handlerFunc(func(_ context.Context, r *api.Request, dst []byte) api.Answer {
				if len(r.Body) > 2 {
					close(begun)
					<-finish
				}
				return api.Answer{Body: append(dst, `{"errorCode":0}`...)}
			}))
			resting, elsewhere, working := s.dialSecond(t), dial(t, s.Server), s.dialSecond(t)
			restingReader, elsewhereReader := bufio.NewReader(resting), bufio.NewReader(elsewhere)
			ping := func(nc net.Conn, r *bufio.Reader) {
				t.Helper()
				send(t, nc, "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
				receive(t, r, "POST")
			}
			ping(resting, restingReader)
			ping(elsewhere, elsewhereReader)
			send(t, working, "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n{   }")
			<-begun
			port := s.second()
			s.manage(t, "second", command)
			if _, err := restingReader.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("the resting connection: %v, want its end", err)
			}
			want := map[api.ServiceCommand]api.ServiceState{api.Shutdown: api.Stopped, api.Restart: api.Running}[command]
			if got := answers(t, port); got != want {
				t.Errorf("who comes finds it %s, want %s", got, want)
			}
			close(finish)
			r := bufio.NewReader(working)
			if got := receive(t, r, "POST"); got.status != 200 {
				t.Errorf("what ran is answered %d", got.status)
			}
			if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("its connection afterwards: %v, want its end", err)
			}
			ping(elsewhere, elsewhereReader)
		})
	}
}

// The one listener there is can be restarted, by a request that it carries itself.
func TestRestartOfTheOnlyListener(t *testing.T) {
	var s *secure
	serves := make(chan struct{})
	s = startTLSWith(t, handlerFunc(func(ctx context.Context, r *api.Request, dst []byte) api.Answer {
		<-serves
		if string(r.Body) == "restart" {
			if _, _, err := s.Manage(ctx, "main", api.Restart, recorded); err != nil {
				return api.Answer{Body: append(dst, err.Error()...)}
			}
		}
		return api.Answer{Body: append(dst, `{"errorCode":0}`...)}
	}))
	close(serves)
	before := s.Addrs()[0].String()
	writeCertificate(t, s.file, 2, s.roots)
	nc := s.dial(t)
	send(t, nc, "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n\r\nrestart")
	if got := receive(t, bufio.NewReader(nc), "POST"); got.status != 200 || string(got.body) != `{"errorCode":0}` {
		t.Errorf("answered %d %s", got.status, got.body)
	}
	if n := s.serial(t); n != 2 || s.Addrs()[0].String() != before {
		t.Errorf("then it has certificate %d at %s, want 2 at %s", n, s.Addrs()[0], before)
	}
	writeFile(t, s.file, []byte("no certificate"))
	if _, _, err := s.Manage(t.Context(), "main", api.Restart, recorded); code(err) != api.Conflict {
		t.Errorf("a restart without a certificate returns %v", err)
	}
	if n := s.serial(t); n != 2 {
		t.Errorf("then it has certificate %d, want 2", n)
	}
}

// A restart takes over what a reload has brought, and the listing shows it.
func TestRestartFollowsTheConfiguration(t *testing.T) {
	s := startTwo(t)
	changed := *s.holder.Get()
	changed.Listeners = []config.Listener{changed.Listeners[0], {ServiceName: "third", Description: "new", Protocol: "http", Enabled: true}}
	if _, err := s.Reload(&changed, recorded); err != nil {
		t.Fatal(err)
	}
	old := s.second()
	show := func() (lines []string) {
		for _, l := range s.Listeners() {
			lines = append(lines, l.ServiceName+" "+string(l.State)+" "+l.Description)
		}
		return lines
	}
	for _, c := range []struct {
		service string
		command api.ServiceCommand
		want    []string
	}{
		{"third", api.Startup, []string{"main running ", "third running new", "second running "}},
		{"second", api.Shutdown, []string{"main running ", "third running new"}},
	} {
		s.manage(t, c.service, c.command)
		if d := cmp.Diff(c.want, show()); d != "" {
			t.Errorf("after %s of %s (-want +got):\n%s", c.command, c.service, d)
		}
	}
	if _, _, err := s.Manage(t.Context(), "second", api.Startup, recorded); code(err) != api.NotFound {
		t.Errorf("starting what the configuration has no more: %v", err)
	}
	if got := answers(t, old); got != api.Stopped {
		t.Errorf("who comes to the second finds it %s", got)
	}
}

func TestListenersShowCertificates(t *testing.T) {
	s := startTLS(t)
	l := s.Listeners()[0]
	if c := l.Certificate; c == nil || c.Subject != "CN=certificate 1" || len(c.SHA256) != 64 || !c.NotAfter.After(time.Now()) || l.CertificateFile != s.file {
		t.Errorf("shown are %+v and %+v", l, c)
	}
}

// two is a server with the listeners main and second.
type two struct {
	*httpd.Server

	holder *config.Holder
}

func startTwo(t *testing.T) *two { return startTwoWith(t, &echo{}) }

func startTwoWith(t *testing.T, h httpd.Handler) *two {
	t.Helper()
	s := &two{}
	s.Server, s.holder = startHeld(t, h, func(c *config.Config) {
		c.Listeners = append(c.Listeners, config.Listener{ServiceName: "second", Protocol: "http", Enabled: true})
	})
	return s
}

func (s *two) manage(t *testing.T, service string, command api.ServiceCommand) {
	t.Helper()
	if _, changed, err := s.Manage(t.Context(), service, command, recorded); err != nil || !changed {
		t.Fatalf("%s of %s: changed %t, %v", command, service, changed, err)
	}
}

// second returns the port of the second listener.
func (s *two) second() int {
	for _, l := range s.Listeners() {
		if l.ServiceName == "second" {
			return l.Port
		}
	}
	return 0
}

func (s *two) dialSecond(t *testing.T) net.Conn {
	t.Helper()
	return dialPort(t, s.second())
}

func dialPort(t *testing.T, port int) net.Conn {
	t.Helper()
	nc, err := new(net.Dialer).DialContext(t.Context(), "tcp", "127.0.0.1:"+itoa(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return nc
}

// answers says in which state who comes to a port finds the listener.
func answers(t *testing.T, port int) api.ServiceState {
	t.Helper()
	if port == 0 {
		return api.Stopped
	}
	nc, err := new(net.Dialer).DialContext(t.Context(), "tcp", "127.0.0.1:"+itoa(port))
	if err != nil {
		return api.Stopped
	}
	defer func() { _ = nc.Close() }()
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	send(t, nc, "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
	got := receive(t, bufio.NewReader(nc), "POST")
	if got.status == 503 && got.code(t) == api.ShuttingDown && got.header.Get("Retry-After") != "" {
		return api.Paused
	}
	if got.status != 200 {
		t.Errorf("answered %d %s", got.status, got.body)
	}
	return api.Running
}

func code(err error) api.Code {
	if err == nil {
		return 0
	}
	return api.FromError(err).Code
}

// recorded is the log of changes, with room for everything.
func recorded() error { return nil }
