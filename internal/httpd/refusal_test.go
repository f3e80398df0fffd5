package httpd_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/config"
)

// A client that sends 5 MB before it reads gets the whole refusal and a clean
// end, not a reset; and what it sent is never taken for another request.
func TestRefusalReachesWhoIsStillSending(t *testing.T) {
	const size = 5 << 20
	hidden := "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
	bodies := map[string]struct{ header, body string }{
		"with a length": {"Content-Length: " + itoa(size) + "\r\n", strings.Repeat(hidden, size/len(hidden)+1)[:size]},
		"chunked":       {"Transfer-Encoding: chunked\r\n", strings.Repeat("10000\r\n"+strings.Repeat(hidden, 1200)[:65536]+"\r\n", size/65536) + "0\r\n\r\n"},
		"ill-framed":    {"Content-Length: " + itoa(size) + "\r\nTransfer-Encoding: chunked\r\n", strings.Repeat(hidden, size/len(hidden)+1)[:size]},
	}
	for name, want := range map[string]struct {
		start string
		given map[string]int
	}{
		"too large":    {"POST /api HTTP/1.1\r\nHost: localhost\r\n", map[string]int{"with a length": 413, "chunked": 413, "ill-framed": 400}},
		"wrong type":   {"POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n", map[string]int{"with a length": 415, "chunked": 415, "ill-framed": 400}},
		"wrong path":   {"POST /upload HTTP/1.1\r\nHost: localhost\r\n", map[string]int{"with a length": 404, "chunked": 404, "ill-framed": 400}},
		"wrong method": {"PUT /api HTTP/1.1\r\nHost: localhost\r\n", map[string]int{"with a length": 405, "chunked": 405, "ill-framed": 400}},
		"cross-site":   {"POST /api HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n", map[string]int{"with a length": 403, "chunked": 403, "ill-framed": 400}},
	} {
		for kind, body := range bodies {
			t.Run(name+", "+kind, func(t *testing.T) {
				h := &echo{}
				s := start(t, h, nil)
				nc := dial(t, s)
				send(t, nc, want.start+body.header+"\r\n")
				send(t, nc, body.body)
				r := bufio.NewReader(nc)
				got := receive(t, r, "POST")
				if got.status != want.given[kind] || got.header.Get("Connection") != "close" || got.code(t) == api.OK {
					t.Errorf("answered %d, Connection %q, %s; want %d", got.status, got.header.Get("Connection"), got.body, want.given[kind])
				}
				if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
					t.Errorf("after the answer come %q, %v", rest, err)
				}
				if n := h.handled.Load(); n != 0 {
					t.Errorf("%d requests were found in the body of a refused one", n)
				}
			})
		}
	}
}

func TestCurlShowsTheRefusal(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal("curl is missing: make deps installs it")
	}
	s := start(t, &echo{}, nil)
	for name, args := range map[string][]string{
		"as it does by itself": nil,
		"without asking first": {"-H", "Expect:"},
		"chunked":              {"-H", "Expect:", "-H", "Transfer-Encoding: chunked"},
		"asking, then chunked": {"-H", "Expect: 100-continue", "-H", "Transfer-Encoding: chunked"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), curl, append([]string{"-sS", "--max-time", "10", "--data-binary", "@-", "-w", " %{http_code}", "http://" + s.Addrs()[0].String() + "/api"}, args...)...)
			cmd.Stdin = strings.NewReader(strings.Repeat("x", 5<<20))
			out, err := cmd.CombinedOutput()
			want := `{"result":{},"errorCode":21008,"errorMessage":"the request's body is larger than maxRequestBytes"} 413`
			if err != nil || string(out) != want {
				t.Errorf("curl shows %s, %v", out, err)
			}
		})
	}
}

// Whoever is slow is told so and cut, and no request of his is handled.
func TestSlowClientsAreCut(t *testing.T) {
	h := &echo{}
	s := start(t, h, func(c *config.Config) { c.RequestTimeout = 1 })
	for name, wire := range map[string]string{
		"silent":              "",
		"in the request line": "POST /a",
		"in the header":       "POST /api HTTP/1.1\r\nHost: loc",
		"bare line feeds":     "POST /api HTTP/1.1\nHost: localhost\nContent-Length: 2\n\n{}",
		"in the body":         "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
		"in a chunk":          "POST /api HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nc := dial(t, s)
			send(t, nc, wire)
			r := bufio.NewReader(nc)
			if got := receive(t, r, "POST"); got.status != 408 || got.code(t) != api.BadEnvelope {
				t.Errorf("answered %d %s", got.status, got.body)
			}
			if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("then %v, want the end", err)
			}
			if n := h.handled.Load(); n != 0 {
				t.Errorf("%d handled", n)
			}
		})
	}
}

// A kept connection may rest for IdleTimeout, but a request on it may not.
func TestSlowSecondRequestIsCut(t *testing.T) {
	s := start(t, &echo{}, func(c *config.Config) { c.RequestTimeout = 1 })
	nc := dial(t, s)
	r := bufio.NewReader(nc)
	send(t, nc, "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}POST /a")
	receive(t, r, "POST")
	if got := receive(t, r, "POST"); got.status != 408 {
		t.Errorf("answered %d %s", got.status, got.body)
	}
}

// A refusal before the body is read reaches a client whose connection has rested
// for longer than an answer may take.
func TestRefusalAfterARest(t *testing.T) {
	s := start(t, &echo{}, func(c *config.Config) { c.RequestTimeout = 1 })
	for name, wire := range map[string]string{
		"malformed":            "POST /api HTTP/1.1\r\nX\r\n\r\n",
		"too large":            "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n",
		"asking before it":     "POST /api HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5000000\r\n\r\n",
		"asking, and accepted": "POST /api HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nc := dial(t, s)
			r := bufio.NewReader(nc)
			send(t, nc, "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
			receive(t, r, "POST")
			time.Sleep(1500 * time.Millisecond) // the rest itself: a socket knows no other clock
			send(t, nc, wire)
			if got := receive(t, r, "POST"); (got.status == 200) != (name == "asking, and accepted") {
				t.Errorf("answered %d %s", got.status, got.body)
			}
		})
	}
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	s := start(t, &echo{}, func(c *config.Config) { c.IdleTimeout = 1 })
	nc := dial(t, s)
	r := bufio.NewReader(nc)
	send(t, nc, "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
	receive(t, r, "POST")
	if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
		t.Errorf("after a while come %q, %v; want the end", rest, err)
	}
}

func TestConnectionsAreCapped(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*config.Config)
		status int
		code   api.Code
	}{
		{"in all", func(c *config.Config) { c.MaxConnections = 3 }, 503, api.Overloaded},
		{"per address", func(c *config.Config) { c.MaxConnectionsPerIP = 3 }, 429, api.RateLimited},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, &echo{}, c.change)
			var open []net.Conn
			for range 3 {
				nc := dial(t, s)
				send(t, nc, "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
				receive(t, bufio.NewReader(nc), "POST")
				open = append(open, nc)
			}
			nc := dial(t, s)
			send(t, nc, "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
			r := bufio.NewReader(nc)
			if got := receive(t, r, "POST"); got.status != c.status || got.code(t) != c.code || got.header.Get("Retry-After") != "1" {
				t.Errorf("the fourth gets %d, Retry-After %q, %s", got.status, got.header.Get("Retry-After"), got.body)
			}
			if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("then %v, want the end", err)
			}
			_ = open[0].Close()
			deadline := time.After(5 * time.Second)
			for {
				nc := dial(t, s)
				send(t, nc, "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
				if receive(t, bufio.NewReader(nc), "POST").status == 200 {
					return
				}
				select {
				case <-deadline:
					t.Fatal("a place that is free again is not given")
				case <-time.After(10 * time.Millisecond):
				}
			}
		})
	}
}
