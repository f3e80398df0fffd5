package httpd_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
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

// What stands on the wire, what comes back. ⏎ is CR LF. Handled says whether the
// Handler was asked; closes whether the connection is of no further use.
func TestRequests(t *testing.T) {
	const head = "POST /api HTTP/1.1⏎Host: localhost⏎"
	const body = "Content-Length: 2⏎⏎{}"
	many := func(n int) string { return strings.Repeat("X: 1⏎", n) }
	for _, c := range []struct {
		name    string
		wire    string
		status  int
		code    api.Code
		handled int
		closes  bool
	}{
		// The endpoint.
		{"a request", head + body, 200, 0, 1, false},
		{"two in one write", head + body + head + body, 200, 0, 2, false},
		{"chunked", head + "Transfer-Encoding: chunked⏎⏎2⏎{}⏎0⏎⏎", 200, 0, 1, false},
		{"HTTP/1.0 closes", "POST /api HTTP/1.0⏎Host: localhost⏎" + body, 200, 0, 1, true},
		{"asked to close", head + "Connection: close⏎" + body, 200, 0, 1, true},
		{"no type", head + body, 200, 0, 1, false},
		{"JSON with a charset", head + "Content-Type: APPLICATION/json ; charset=UTF-8⏎" + body, 200, 0, 1, false},
		{"what curl -d sends", head + "Content-Type: application/x-www-form-urlencoded⏎" + body, 200, 0, 1, false},
		{"another type", head + "Content-Type: text/plain⏎" + body, 415, 21001, 0, false},
		{"another type that begins alike", head + "Content-Type: application/jsonp⏎" + body, 415, 21001, 0, false},
		{"identity", head + "Content-Encoding: Identity⏎" + body, 200, 0, 1, false},
		{"compressed", head + "Content-Encoding: gzip⏎" + body, 415, 21001, 0, false},
		{"a query", "POST /api?authToken=x HTTP/1.1⏎Host: localhost⏎" + body, 400, 21001, 0, false},
		{"an empty query", "POST /api? HTTP/1.1⏎Host: localhost⏎" + body, 400, 21001, 0, false},
		{"GET", "GET /api HTTP/1.1⏎Host: localhost⏎⏎", 405, 21001, 0, false},
		{"PUT", "PUT /api HTTP/1.1⏎Host: localhost⏎" + body, 405, 21001, 0, false},
		{"a method of no kind", "FROB /api HTTP/1.1⏎Host: localhost⏎" + body, 405, 21001, 0, false},
		{"OPTIONS", "OPTIONS /api HTTP/1.1⏎Host: localhost⏎⏎", 405, 21001, 0, false},
		{"no length", head + "⏎", 411, 21001, 0, false},
		{"an empty body is the dispatcher's affair", head + "Content-Length: 0⏎⏎", 200, 0, 1, false},
		{"another path", "POST /apis HTTP/1.1⏎Host: localhost⏎" + body, 404, 21001, 0, false},
		{"a path that would be normalized", "POST //api HTTP/1.1⏎Host: localhost⏎" + body, 404, 21001, 0, false},
		{"a path with dots", "POST /x/../api HTTP/1.1⏎Host: localhost⏎" + body, 404, 21001, 0, false},
		{"an escaped path", "POST /%61pi HTTP/1.1⏎Host: localhost⏎" + body, 404, 21001, 0, false},
		{"too large", head + "Content-Length: 300000⏎⏎{}", 413, 21008, 0, true},
		{"asks before sending", head + "Expect: 100-continue⏎" + body, 200, 0, 1, false},
		{"asks before sending too much", head + "Expect: 100-continue⏎Content-Length: 300000⏎⏎", 413, 21008, 0, true},
		{"asks before sending what is not read", head + "Expect: 100-continue⏎Content-Type: text/xml⏎" + body, 415, 21001, 0, true},

		// The other paths.
		{"what this is", "GET / HTTP/1.1⏎Host: localhost⏎⏎", 200, -1, 0, false},
		{"alive", "GET /healthz HTTP/1.1⏎Host: evil.example⏎⏎", 200, 0, 0, false},
		{"ready", "GET /readyz HTTP/1.1⏎Host: localhost⏎⏎", 200, 0, 0, false},
		{"ready, asked by an old probe", "GET /readyz HTTP/1.0⏎⏎", 200, 0, 0, true},
		{"alive, HEAD", "HEAD /healthz HTTP/1.1⏎Host: localhost⏎⏎", 200, -1, 0, false},
		{"alive, POST", "POST /healthz HTTP/1.1⏎Host: localhost⏎" + body, 405, 21001, 0, false},

		// Who it is for, and whose page sent it.
		{"by address", "POST /api HTTP/1.1⏎Host: 127.0.0.1:8080⏎" + body, 200, 0, 1, false},
		{"by address of another kind", "POST /api HTTP/1.1⏎Host: [::1]:8080⏎" + body, 200, 0, 1, false},
		{"an allowed name", "POST /api HTTP/1.1⏎Host: Sessions.Example:8443⏎" + body, 200, 0, 1, false},
		{"a rebound name", "POST /api HTTP/1.1⏎Host: evil.example⏎" + body, 421, 21001, 0, false},
		{"a name that begins alike", "POST /api HTTP/1.1⏎Host: localhost.evil.example⏎" + body, 421, 21001, 0, false},
		{"a name with a path in it", "POST /api HTTP/1.1⏎Host: localhost/x⏎" + body, 400, 21001, 0, true},
		{"cross-site", head + "Sec-Fetch-Site: cross-site⏎" + body, 403, 21201, 0, false},
		{"same-site", head + "Sec-Fetch-Site: same-site⏎Origin: https://other.example⏎" + body, 403, 21201, 0, false},
		{"same-origin", head + "Sec-Fetch-Site: same-origin⏎" + body, 200, 0, 1, false},
		{"typed by a person", head + "Sec-Fetch-Site: none⏎" + body, 200, 0, 1, false},
		{"cross-site, allowed", head + "Sec-Fetch-Site: cross-site⏎Origin: https://app.example⏎" + body, 200, 0, 1, false},
		{"cross-site, from nowhere", head + "Sec-Fetch-Site: cross-site⏎Origin: null⏎" + body, 403, 21201, 0, false},
		{"a browser that is silent over plain HTTP", head + "Origin: http://evil.example⏎" + body, 403, 21201, 0, false},
		{"the same, own page", head + "Origin: http://localhost⏎" + body, 200, 0, 1, false},
		{"preflight, allowed", "OPTIONS /api HTTP/1.1⏎Host: localhost⏎Origin: https://app.example⏎Access-Control-Request-Method: POST⏎⏎", 204, -1, 0, false},
		{"preflight, not allowed", "OPTIONS /api HTTP/1.1⏎Host: localhost⏎Origin: https://evil.example⏎Access-Control-Request-Method: POST⏎⏎", 405, 21001, 0, false},

		// Framing: what two parsers could read as two different things.
		{"both lengths", head + "Content-Length: 5⏎Transfer-Encoding: chunked⏎⏎0⏎⏎", 400, 21001, 0, true},
		{"both lengths, the other way round", head + "Transfer-Encoding: chunked⏎Content-Length: 5⏎⏎0⏎⏎", 400, 21001, 0, true},
		{"a smuggled request", head + "Content-Length: 4⏎Transfer-Encoding: chunked⏎⏎0⏎⏎" + head + body, 400, 21001, 0, true},
		{"identity is no framing", head + "Transfer-Encoding: identity⏎⏎" + head + body, 400, 21001, 0, true},
		{"chunked twice", head + "Transfer-Encoding: chunked⏎Transfer-Encoding: chunked⏎⏎0⏎⏎", 400, 21001, 0, true},
		{"chunked, identity", head + "Transfer-Encoding: chunked, identity⏎⏎0⏎⏎", 400, 21001, 0, true},
		{"xchunked", head + "Transfer-Encoding: xchunked⏎⏎0⏎⏎", 400, 21001, 0, true},
		{"chunked with a vertical tab", head + "Transfer-Encoding: \vchunked⏎⏎0⏎⏎", 400, 21001, 0, true},
		{"chunked on 1.0", "POST /api HTTP/1.0⏎Host: localhost⏎Transfer-Encoding: chunked⏎⏎0⏎⏎", 400, 21001, 0, true},
		{"two lengths", head + "Content-Length: 2⏎Content-Length: 3⏎⏎{}", 400, 21001, 0, true},
		{"two equal lengths", head + "Content-Length: 2⏎Content-Length: 2⏎⏎{}", 400, 21001, 0, true},
		{"a list of lengths", head + "Content-Length: 2, 2⏎⏎{}", 400, 21001, 0, true},
		{"a signed length", head + "Content-Length: +2⏎⏎{}", 400, 21001, 0, true},
		{"a negative length", head + "Content-Length: -1⏎⏎{}", 400, 21001, 0, true},
		{"a hexadecimal length", head + "Content-Length: 0x2⏎⏎{}", 400, 21001, 0, true},
		{"a length beyond 64 bits", head + "Content-Length: 18446744073709551618⏎⏎{}", 400, 21001, 0, true},
		{"a blank before the colon", head + "Content-Length : 2⏎⏎{}", 400, 21001, 0, true},
		{"a folded header", head + "X: a⏎ b⏎" + body, 400, 21001, 0, true},
		{"a folded length", head + "Content-Length:⏎ 2⏎⏎{}", 400, 21001, 0, true},
		{"a blank before the first header", "POST /api HTTP/1.1⏎ Host: localhost⏎" + body, 400, 21001, 0, true},
		{"two types", head + "Content-Type: application/json⏎content-type: text/plain⏎" + body, 400, 21001, 0, true},
		{"two Authorizations", head + "Authorization: Bearer a⏎Authorization: Bearer b⏎" + body, 400, 21001, 0, true},
		{"two Origins", head + "Origin: https://app.example⏎Origin: https://evil.example⏎" + body, 400, 21001, 0, true},
		{"two Hosts", head + "Host: localhost⏎" + body, 400, 21001, 0, true},
		{"no Host", "POST /api HTTP/1.1⏎" + body, 400, 21001, 0, true},
		{"no Host on 1.0", "POST /api HTTP/1.0⏎" + body, 400, 21001, 0, true},
		{"64 header lines", "POST /api HTTP/1.1⏎Host: localhost⏎" + many(62) + body, 200, 0, 1, false},
		{"65 header lines", "POST /api HTTP/1.1⏎Host: localhost⏎" + many(63) + body, 400, 21001, 0, true},
		{"900 header lines", head + many(900) + body, 400, 21001, 0, true},
		{"a header of 20 KiB", head + "X: " + strings.Repeat("a", 20<<10) + "⏎" + body, 431, 21008, 0, true},
		{"an absolute target", "POST http://localhost/api HTTP/1.1⏎Host: localhost⏎" + body, 400, 21001, 0, true},
		{"an absolute target to elsewhere", "POST http://evil/api HTTP/1.1⏎Host: localhost⏎" + body, 400, 21001, 0, true},
		{"a tunnel", "CONNECT localhost:80 HTTP/1.1⏎Host: localhost⏎⏎", 400, 21001, 0, true},
		{"OPTIONS *", "OPTIONS * HTTP/1.1⏎Host: localhost⏎⏎", 400, 21001, 0, true},
		{"the preface of HTTP/2", "PRI * HTTP/2.0⏎⏎SM⏎⏎", 400, 21001, 0, true},
		{"HTTP/1.2", "POST /api HTTP/1.2⏎Host: localhost⏎" + body, 400, 21001, 0, true},
		{"HTTP/0.9", "GET /⏎", 400, 21001, 0, true},
		{"a bare carriage return", head + "X: a\rb⏎" + body, 400, 21001, 0, true},
		{"NUL", head + "X: a\x00b⏎" + body, 400, 21001, 0, true},
		{"no colon", head + "X⏎" + body, 400, 21001, 0, true},
		{"an extension with a line feed", head + "Transfer-Encoding: chunked⏎⏎2;x\n⏎{}⏎0⏎⏎", 400, 21001, 0, true},
		{"chunks that end in line feeds", head + "Transfer-Encoding: chunked⏎⏎2\n{}\n0\n\n", 400, 21001, 0, true},
		{"a negative chunk", head + "Transfer-Encoding: chunked⏎⏎-2⏎{}⏎0⏎⏎", 400, 21001, 0, true},
		{"a huge chunk", head + "Transfer-Encoding: chunked⏎⏎FFFFFFFFFFFFFFFFF⏎{}⏎0⏎⏎", 400, 21001, 0, true},
		{"a chunk longer than it says", head + "Transfer-Encoding: chunked⏎⏎1⏎{}⏎0⏎⏎", 400, 21001, 0, true},
		{"not HTTP at all", "\x16\x03\x01\x02\x00\x01\x00\x01⏎⏎", 400, 21001, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := &echo{}
			s := start(t, h, nil)
			nc := dial(t, s)
			send(t, nc, strings.ReplaceAll(c.wire, "⏎", "\r\n"))
			r := bufio.NewReader(nc)
			method, _, _ := strings.Cut(c.wire, " ")
			var got answer
			for range max(1, c.handled) {
				got = receive(t, r, method)
			}
			if got.status != c.status {
				t.Errorf("status %d, want %d; body %s", got.status, c.status, got.body)
			}
			if c.code >= 0 && got.code(t) != c.code {
				t.Errorf("body %s, want code %d", got.body, c.code)
			}
			if closes := got.header.Get("Connection") == "close"; closes != c.closes {
				t.Errorf("Connection: %q, want close: %t", got.header.Get("Connection"), c.closes)
			}
			if c.closes {
				if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
					t.Errorf("after the answer come %q, %v", rest, err)
				}
			}
			if n := h.handled.Load(); int(n) != c.handled {
				t.Errorf("the Handler was asked %d times, want %d", n, c.handled)
			}
			for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Server": "", "Vary": "Origin"} {
				if got := got.header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if want := map[bool]string{true: "", false: "application/json; charset=utf-8"}[c.status == 204]; c.code >= 0 && got.header.Get("Content-Type") != want {
				t.Errorf("Content-Type: %q, want %q", got.header.Get("Content-Type"), want)
			}
		})
	}
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
