package httpd_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/httpd"
	"sessiond/internal/logging"
)

func TestMain(m *testing.M) {
	if runAsChild() {
		return
	}
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

func TestHeadersOfRefusals(t *testing.T) {
	s := start(t, &echo{}, nil)
	for _, c := range []struct{ name, wire, header, want string }{
		{"the endpoint names its method", "GET /api HTTP/1.1⏎Host: localhost⏎⏎", "Allow", "POST"},
		{"the other paths theirs", "POST / HTTP/1.1⏎Host: localhost⏎Content-Length: 0⏎⏎", "Allow", "GET, HEAD"},
		{"an allowed page may read a refusal", "GET /api HTTP/1.1⏎Host: localhost⏎Origin: https://app.example⏎⏎", "Access-Control-Allow-Origin", "https://app.example"},
		{"another may not", "GET /api HTTP/1.1⏎Host: localhost⏎Origin: https://evil.example⏎⏎", "Access-Control-Allow-Origin", ""},
		{"an allowed page may send", "OPTIONS /api HTTP/1.1⏎Host: localhost⏎Origin: https://app.example⏎Access-Control-Request-Method: POST⏎⏎", "Access-Control-Allow-Headers", "Authorization, Content-Type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			nc := dial(t, s)
			send(t, nc, strings.ReplaceAll(c.wire, "⏎", "\r\n"))
			if got := receive(t, bufio.NewReader(nc), "").header.Get(c.header); got != c.want {
				t.Errorf("%s: %q, want %q", c.header, got, c.want)
			}
		})
	}
}

// What the Handler is given, and what becomes of what it gives.
func TestWhatTheHandlerSees(t *testing.T) {
	var seen api.Request
	var body, bearer string
	s := start(t, handlerFunc(func(_ context.Context, r *api.Request, dst []byte) api.Answer {
		seen, body, bearer = *r, string(r.Body), strings.Clone(r.Bearer.Reveal())
		return api.Answer{Status: 503, RetryAfterSeconds: 7, Body: append(dst, `{"errorCode":21901}`...)}
	}), nil)
	nc := dial(t, s)
	r := bufio.NewReader(nc)
	for _, c := range []struct{ name, header, bearer string }{
		{"a token", "Authorization: Bearer sdses_abc", "sdses_abc"},
		{"the scheme in other letters", "authorization: bEARER   sdses_abd ", "sdses_abd"},
		{"whatever follows the scheme", "Authorization: Bearer a b,c", "a b,c"},
		{"nothing after the scheme", "Authorization: Bearer ", ""},
		{"no scheme", "Authorization: sdses_abc", ""},
		{"another scheme", "Authorization: Basic YTpi", ""},
		{"no header", "X: y", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			send(t, nc, "POST /api HTTP/1.1\r\nHost: localhost\r\nUser-Agent: "+strings.Repeat("u", 600)+"\r\n"+c.header+"\r\nContent-Length: 7\r\n\r\n{\"a\":1}")
			got := receive(t, r, "POST")
			if bearer != c.bearer || body != `{"a":1}` || seen.Address != netip.MustParseAddr("127.0.0.1") || len(seen.UserAgent) != 512 {
				t.Errorf("seen: bearer %q, body %q, address %v, %d bytes of user agent", bearer, body, seen.Address, len(seen.UserAgent))
			}
			if got.status != 503 || got.header.Get("Retry-After") != "7" || got.code(t) != api.Overloaded {
				t.Errorf("answered %d, Retry-After %q, %s", got.status, got.header.Get("Retry-After"), got.body)
			}
		})
	}
}

// Answers of every size arrive whole, one after another on one connection.
func TestAnswersOfEverySize(t *testing.T) {
	s := start(t, handlerFunc(func(_ context.Context, r *api.Request, dst []byte) api.Answer {
		return api.Answer{Body: append(dst, r.Body...)}
	}), nil)
	nc := dial(t, s)
	r := bufio.NewReader(nc)
	for _, size := range []int{0, 1, 100_000, 10, 4096, 65_536, 65_537, 262_144, 3} {
		want := bytes.Repeat([]byte("x"), size)
		send(t, nc, "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: "+itoa(size)+"\r\n\r\n"+string(want))
		if got := receive(t, r, "POST"); !bytes.Equal(got.body, want) {
			t.Fatalf("%d bytes came back as %d", size, len(got.body))
		}
	}
}

func TestForwardedAddressReachesTheHandler(t *testing.T) {
	var address netip.Addr
	s := start(t, handlerFunc(func(_ context.Context, r *api.Request, dst []byte) api.Answer {
		address = r.Address
		return api.Answer{Body: append(dst, `{}`...)}
	}), func(c *config.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		c.ForwardedHeader = "X-Forwarded-For"
	})
	nc := dial(t, s)
	send(t, nc, "POST /api HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.9, 198.51.100.7\r\nContent-Length: 2\r\n\r\n{}")
	receive(t, bufio.NewReader(nc), "POST")
	if want := netip.MustParseAddr("198.51.100.7"); address != want {
		t.Errorf("the Handler sees %v, want %v", address, want)
	}
}

func TestPanicIsAnsweredAndTheServerLives(t *testing.T) {
	log := &buffer{}
	s := startLogged(t, handlerFunc(func(_ context.Context, r *api.Request, dst []byte) api.Answer {
		if len(r.Body) > 2 {
			panic("secret: " + string(r.Body))
		}
		return api.Answer{Body: append(dst, `{"errorCode":0}`...)}
	}), nil, log)
	nc := dial(t, s)
	send(t, nc, "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n\r\nhunter2")
	if got := receive(t, bufio.NewReader(nc), "POST"); got.status != 500 || got.code(t) != api.Internal {
		t.Errorf("answered %d %s", got.status, got.body)
	}
	nc = dial(t, s)
	send(t, nc, "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
	if got := receive(t, bufio.NewReader(nc), "POST"); got.status != 200 {
		t.Errorf("afterwards %d %s", got.status, got.body)
	}
	if text := log.String(); !strings.Contains(text, `"message":"request panicked"`) || strings.Contains(text, "hunter2") {
		t.Errorf("the log says %s", text)
	}
}

// A server that is starting answers /healthz, and tells all others how far it is.
func TestStarting(t *testing.T) {
	cfg := configuration()
	s := httpd.New(httpd.Options{Holder: config.NewHolder(cfg), Ready: func() error { return nil }}, nil)
	run(t, s)
	nc := dial(t, s)
	r := bufio.NewReader(nc)
	ask := func(method, path string) answer {
		t.Helper()
		body := map[string]string{"POST": "{}"}[method]
		send(t, nc, fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body))
		return receive(t, r, method)
	}
	for _, stage := range []string{"", "verifying the file, 43 %"} {
		want := "the server is starting"
		if stage != "" {
			s.Starting(stage)
			want += ": " + stage
		}
		if got := ask("GET", "/healthz"); got.status != 200 {
			t.Errorf("/healthz: %d %s", got.status, got.body)
		}
		for path, method := range map[string]string{"/readyz": "GET", "/": "GET", "/api": "POST"} {
			got := ask(method, path)
			if got.status != 503 || got.code(t) != api.Overloaded || !bytes.Contains(got.body, []byte(`"errorMessage":"`+want+`"`)) || got.header.Get("Retry-After") != "1" {
				t.Errorf("%s: %d %v %s", path, got.status, got.header, got.body)
			}
		}
		if got := ask("GET", "/nosuch"); got.status != 404 {
			t.Errorf("/nosuch: %d %s", got.status, got.body)
		}
	}
	s.Begin(&echo{})
	for path, method := range map[string]string{"/readyz": "GET", "/": "GET", "/api": "POST"} {
		if got := ask(method, path); got.status != 200 {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
}

func TestReadyz(t *testing.T) {
	var refusal atomic.Pointer[api.Error]
	cfg := configuration()
	s := httpd.New(httpd.Options{Holder: config.NewHolder(cfg), Ready: func() error {
		if e := refusal.Load(); e != nil {
			return e
		}
		return nil
	}}, &echo{})
	run(t, s)
	nc := dial(t, s)
	r := bufio.NewReader(nc)
	for _, c := range []struct {
		name   string
		err    *api.Error
		status int
		code   api.Code
	}{
		{"ready", nil, 200, api.OK},
		{"storage failed", api.Errorf(api.StorageFailed, "disk %s", "sda"), 503, api.StorageFailed},
		{"loading", api.Errorf(api.Overloaded, "loading"), 503, api.Overloaded},
		{"ready again", nil, 200, api.OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			refusal.Store(c.err)
			send(t, nc, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
			if got := receive(t, r, "GET"); got.status != c.status || got.code(t) != c.code || bytes.Contains(got.body, []byte("sda")) {
				t.Errorf("answered %d %s", got.status, got.body)
			}
		})
	}
}

func TestEveryRefusalIsJSON(t *testing.T) {
	bodies := httpd.Faults()
	if len(bodies) < 20 {
		t.Fatalf("only %d refusals", len(bodies))
	}
	seen := map[string]bool{}
	for _, body := range bodies {
		var envelope struct {
			Result       map[string]any
			ErrorCode    int
			ErrorMessage string
		}
		if err := json.Unmarshal([]byte(body), &envelope); err != nil || envelope.Result == nil || envelope.ErrorCode == 0 || envelope.ErrorMessage == "" {
			t.Errorf("%s: %v", body, err)
		}
		if seen[body] {
			t.Errorf("two refusals say %s", body)
		}
		seen[body] = true
	}
}

// echo answers every request alike and counts them.
type echo struct{ handled atomic.Int64 }

func (e *echo) Serve(_ context.Context, _ *api.Request, dst []byte) api.Answer {
	e.handled.Add(1)
	return api.Answer{Status: 200, Body: append(dst, `{"result":{},"errorCode":0,"errorMessage":""}`...)}
}

type handlerFunc func(ctx context.Context, r *api.Request, dst []byte) api.Answer

func (f handlerFunc) Serve(ctx context.Context, r *api.Request, dst []byte) api.Answer {
	return f(ctx, r, dst)
}

func configuration() *config.Config {
	return &config.Config{
		Listeners:           []config.Listener{{ServiceName: "main", Protocol: "http", Enabled: true}},
		APIRoot:             "/api",
		AllowedHosts:        []string{"sessions.example"},
		AllowedOrigins:      []string{"https://app.example"},
		MaxRequestBytes:     262_144,
		MaxConnections:      10_000,
		MaxConnectionsPerIP: 10_000,
		RequestTimeout:      5,
		IdleTimeout:         30,
		DrainTimeout:        5,
	}
}

func start(t testing.TB, h httpd.Handler, change func(*config.Config)) *httpd.Server {
	return startLogged(t, h, change, io.Discard)
}

func startLogged(t testing.TB, h httpd.Handler, change func(*config.Config), log io.Writer) *httpd.Server {
	t.Helper()
	cfg := configuration()
	if change != nil {
		change(cfg)
	}
	s := httpd.New(httpd.Options{Holder: config.NewHolder(cfg), Log: logging.New(log, "trace", logging.JSON, time.Now)}, h)
	run(t, s, cfg.Listeners...)
	return s
}

// startHeld returns the holder of the configuration too.
func startHeld(t testing.TB, h httpd.Handler, change func(*config.Config)) (*httpd.Server, *config.Holder) {
	t.Helper()
	cfg := configuration()
	if change != nil {
		change(cfg)
	}
	holder := config.NewHolder(cfg)
	s := httpd.New(httpd.Options{Holder: holder, Log: logging.Nop()}, h)
	run(t, s, cfg.Listeners...)
	return s, holder
}

// run serves until the end of the test.
func run(t testing.TB, s *httpd.Server, listeners ...config.Listener) {
	t.Helper()
	if len(listeners) == 0 {
		listeners = configuration().Listeners
	}
	if err := s.Listen(t.Context(), listeners); err != nil {
		t.Fatal(err)
	}
	serve(t, s)
}

func serve(t testing.TB, s *httpd.Server) {
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func dial(t testing.TB, s *httpd.Server) net.Conn {
	t.Helper()
	nc, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return nc
}

func send(t testing.TB, nc io.Writer, wire string) {
	t.Helper()
	if _, err := io.WriteString(nc, wire); err != nil {
		t.Fatal(err)
	}
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

// receive reads the next answer, past any 100 Continue.
func receive(t testing.TB, r *bufio.Reader, method string) answer {
	t.Helper()
	for {
		response, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode == 100 {
			continue
		}
		header := response.Header
		if response.Close {
			header.Set("Connection", "close")
		}
		return answer{response.StatusCode, header, body}
	}
}

func (a answer) code(t testing.TB) api.Code {
	t.Helper()
	var envelope struct{ ErrorCode *api.Code }
	if err := json.Unmarshal(a.body, &envelope); err != nil || envelope.ErrorCode == nil {
		t.Fatalf("no envelope: %q", a.body)
	}
	return *envelope.ErrorCode
}

// What a client calls itself is kept with its session and shown in lists: it is
// text, whatever came, and cut between characters.
func TestAUserAgentIsText(t *testing.T) {
	var seen string
	s := start(t, handlerFunc(func(_ context.Context, r *api.Request, dst []byte) api.Answer {
		seen = strings.Clone(r.UserAgent)
		return api.Answer{Body: append(dst, `{"errorCode":0}`...)}
	}), nil)
	nc := dial(t, s)
	r := bufio.NewReader(nc)
	for sent, want := range map[string]string{
		"x\xff\xfey":                        "xy",
		strings.Repeat("u", 511) + "\u00e9": strings.Repeat("u", 511),
		"caf\u00e9":                         "caf\u00e9",
	} {
		send(t, nc, "POST /api HTTP/1.1\r\nHost: localhost\r\nUser-Agent: "+sent+"\r\nContent-Length: 7\r\n\r\n{\"a\":1}")
		receive(t, r, "POST")
		if seen != want {
			t.Errorf("%q is handed on as %q, want %q", sent, seen, want)
		}
	}
}
