package httpd_test

import (
	"bufio"
	"net"
	"strings"
	"testing"

	"sessiond/internal/config"
	"sessiond/internal/httpd"
)

func TestListenSaysWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed below
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	port := taken.Addr().(*net.TCPAddr).Port
	for _, c := range []struct {
		name     string
		listener config.Listener
		insecure bool
		want     []string // in the error; none: it listens
	}{
		{"loopback by default", config.Listener{Protocol: "http"}, false, nil},
		{"loopback by name", config.Listener{Protocol: "http", Address: "localhost"}, false, nil},
		{"a port in use", config.Listener{Protocol: "http", Port: port}, false, []string{`"main"`, "127.0.0.1:" + itoa(port), "in use", "--listen"}},
		{"plain HTTP for all", config.Listener{Protocol: "http", Address: "0.0.0.0"}, false, []string{`"main"`, "https", "--insecure-http"}},
		{"plain HTTP for all, wanted", config.Listener{Protocol: "http", Address: "*"}, true, nil},
		{"somebody else's address", config.Listener{Protocol: "http", Address: "192.0.2.1"}, true, []string{`"main"`, "192.0.2.1:0", "no such address"}},
		{"another protocol", config.Listener{Protocol: "ftp"}, false, []string{`"main"`, "http or https"}},
		{"a certificate that is not there", config.Listener{Protocol: "https", TLS: config.TLS{CertificateFile: "/none/cert.pem"}}, false, []string{`"main"`, "/none/cert.pem"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := configuration()
			cfg.InsecureHTTP = c.insecure
			c.listener.ServiceName, c.listener.Enabled = "main", true
			first := config.Listener{ServiceName: "first", Protocol: "http", Enabled: true}
			s := httpd.New(httpd.Options{Holder: config.NewHolder(cfg)}, &echo{})
			err := s.Listen(t.Context(), []config.Listener{first, {Protocol: "http"}, c.listener})
			if (err == nil) != (len(c.want) == 0) {
				t.Fatalf("Listen returned %v", err)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in %q", part, err)
				}
			}
			if err != nil {
				if n := len(s.Addrs()); n != 0 {
					t.Errorf("%d listeners are left bound", n)
				}
				return
			}
			if n := len(s.Addrs()); n != 2 {
				t.Errorf("%d listeners are bound, want the two that are enabled", n)
			}
			serve(t, s)
		})
	}
	t.Run("none enabled", func(t *testing.T) {
		s := httpd.New(httpd.Options{Holder: config.NewHolder(configuration())}, &echo{})
		if err := s.Listen(t.Context(), []config.Listener{{Protocol: "http"}}); err == nil || !strings.Contains(err.Error(), "enabled") {
			t.Errorf("Listen returned %v", err)
		}
	})
}

// A listener on all addresses takes any name until it is told which are its own.
func TestHostOnAllAddresses(t *testing.T) {
	for _, c := range []struct {
		name, host string
		allowed    []string
		status     int
	}{
		{"any name", "anything.example", nil, 200},
		{"a name that is not among those allowed", "anything.example", []string{"sessions.example"}, 421},
		{"one that is", "sessions.example.:1234", []string{"sessions.example"}, 200},
		{"one allowed with its port only", "sessions.example:1", []string{"sessions.example:2"}, 421},
		{"an address", "192.0.2.7:80", []string{"sessions.example"}, 200},
		{"localhost is a name like any other", "localhost", []string{"sessions.example"}, 421},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, &echo{}, func(cfg *config.Config) {
				cfg.Listeners[0].Address, cfg.InsecureHTTP, cfg.AllowedHosts = "0.0.0.0", true, c.allowed
			})
			nc, err := new(net.Dialer).DialContext(t.Context(), "tcp", "127.0.0.1:"+itoa(s.Addrs()[0].(*net.TCPAddr).Port))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = nc.Close() }()
			send(t, nc, "POST /api HTTP/1.1\r\nHost: "+c.host+"\r\nContent-Length: 2\r\n\r\n{}")
			if got := receive(t, bufio.NewReader(nc), "POST"); got.status != c.status {
				t.Errorf("answered %d %s, want %d", got.status, got.body, c.status)
			}
		})
	}
}
