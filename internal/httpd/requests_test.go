package httpd_test

import (
	"bufio"
	"io"
	"strconv"
	"strings"
	"testing"

	"sessiond/internal/api"
)

// A wireCase is what stands on the wire, and what comes back. ⏎ is CR LF. Handled
// says how often the Handler was asked; closes whether the connection is of no
// further use.
type wireCase struct {
	name    string
	wire    string
	status  int
	code    api.Code
	handled int
	closes  bool
}

func wireCases() []wireCase {
	const head = "POST /api HTTP/1.1⏎Host: localhost⏎"
	const body = "Content-Length: 2⏎⏎{}"
	length := func(of string) string {
		return "Content-Length: " + itoa(len(strings.ReplaceAll(of, "⏎", "\r\n"))) + "⏎⏎"
	}
	chunk := func(of string) string {
		return strconv.FormatInt(int64(len(strings.ReplaceAll(of, "⏎", "\r\n"))), 16) + "⏎" + of + "⏎"
	}
	many := func(n int) string { return strings.Repeat("X: 1⏎", n) }
	return []wireCase{
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
		{"a length with a zero before it", head + "Content-Length: 02⏎⏎{}", 200, 0, 1, false},
		{"a length and a blank", head + "Content-Length: 2 ⏎⏎{}", 200, 0, 1, false},
		{"a length and more", head + "Content-Length: 2;⏎⏎{}", 400, 21001, 0, true},
		{"an empty length", head + "Content-Length:⏎⏎{}", 400, 21001, 0, true},
		{"a length in other digits", head + "Content-Length: ２⏎⏎{}", 400, 21001, 0, true},
		{"a length with an underscore", head + "Content_Length: 400⏎" + body, 200, 0, 1, false},
		{"an encoding with an underscore", head + "Transfer_Encoding: chunked⏎" + body, 200, 0, 1, false},
		{"a length under a name with NUL", head + "Content-Length\x00: 400⏎" + body, 400, 21001, 0, true},
		{"a length that is only named by Connection", head + "Connection: Content-Length⏎" + body, 200, 0, 1, false},
		{"an encoding that is only named by Connection", head + "Connection: Transfer-Encoding⏎Transfer-Encoding: chunked⏎⏎2⏎{}⏎0⏎⏎", 200, 0, 1, false},
		{"a proxy's header named by Connection", head + "Connection: X-Forwarded-For⏎" + body, 200, 0, 1, false},
		{"chunked in other letters", head + "Transfer-Encoding: CHUNKED⏎⏎2⏎{}⏎0⏎⏎", 200, 0, 1, false},
		{"chunked behind a tab", head + "Transfer-Encoding:\tchunked⏎⏎2⏎{}⏎0⏎⏎", 200, 0, 1, false},
		{"chunked before a tab", head + "Transfer-Encoding: chunked\t⏎⏎2⏎{}⏎0⏎⏎", 200, 0, 1, false},
		{"chunked in quotes", head + "Transfer-Encoding: \"chunked\"⏎⏎2⏎{}⏎0⏎⏎", 400, 21001, 0, true},
		{"chunked with a parameter", head + "Transfer-Encoding: chunked;q=1⏎⏎2⏎{}⏎0⏎⏎", 400, 21001, 0, true},
		{"chunked and an empty one", head + "Transfer-Encoding: chunked,⏎⏎2⏎{}⏎0⏎⏎", 400, 21001, 0, true},
		{"gzip, chunked", head + "Transfer-Encoding: gzip, chunked⏎⏎2⏎{}⏎0⏎⏎", 400, 21001, 0, true},
		{"chunked behind a folded line", head + "Transfer-Encoding:⏎ chunked⏎⏎2⏎{}⏎0⏎⏎", 400, 21001, 0, true},
		{"chunked behind a carriage return", head + "X: a\rTransfer-Encoding: chunked⏎" + body, 400, 21001, 0, true},
		{"chunked, a blank before the colon", head + "Transfer-Encoding : chunked⏎" + body, 400, 21001, 0, true},
		{"chunked and a length with an empty name", head + "Transfer-Encoding: chunked⏎: 4⏎⏎2⏎{}⏎0⏎⏎", 400, 21001, 0, true},
		{"a chunk with zeros before its size", head + "Transfer-Encoding: chunked⏎⏎0002⏎{}⏎0⏎⏎", 200, 0, 1, false},
		{"a chunk whose size is 0x2", head + "Transfer-Encoding: chunked⏎⏎0x2⏎{}⏎0⏎⏎", 400, 21001, 0, true},
		{"a chunk whose size has a sign", head + "Transfer-Encoding: chunked⏎⏎+2⏎{}⏎0⏎⏎", 400, 21001, 0, true},
		{"a chunk whose size has a blank before it", head + "Transfer-Encoding: chunked⏎⏎ 2⏎{}⏎0⏎⏎", 400, 21001, 0, true},
		{"a chunk without a size", head + "Transfer-Encoding: chunked⏎⏎⏎{}⏎0⏎⏎", 400, 21001, 0, true},
		{"a chunk with an extension", head + "Transfer-Encoding: chunked⏎⏎2;a=b⏎{}⏎0⏎⏎", 200, 0, 1, false},
		{"a chunk that ends in a carriage return", head + "Transfer-Encoding: chunked⏎⏎2\r{}⏎0⏎⏎", 400, 21001, 0, true},
		{"a chunk that nothing ends", head + "Transfer-Encoding: chunked⏎⏎2⏎{}0⏎⏎", 400, 21001, 0, true},
		{"a trailer", head + "Transfer-Encoding: chunked⏎Trailer: X⏎⏎2⏎{}⏎0⏎X: 1⏎⏎", 200, 0, 1, false},
		{"a length in the trailer", head + "Transfer-Encoding: chunked⏎⏎2⏎{}⏎0⏎Content-Length: 400⏎⏎", 400, 21001, 0, true},
		{"a request in the trailer", head + "Transfer-Encoding: chunked⏎⏎2⏎{}⏎0⏎" + head + body, 400, 21001, 0, true},
		{"a request in a body that is taken", head + length(head+body) + head + body, 200, 0, 1, false},
		{"a request in a body for nothing", "POST /nothing HTTP/1.1⏎Host: localhost⏎" + length(head+body) + head + body, 404, 21001, 0, false},
		{"a request in the body of GET", "GET /healthz HTTP/1.1⏎Host: localhost⏎" + length(head+body) + head + body, 200, 0, 0, false},
		{"a request in the chunked body of GET", "GET /healthz HTTP/1.1⏎Host: localhost⏎Transfer-Encoding: chunked⏎⏎" + chunk(head+body) + "0⏎⏎", 200, 0, 0, false},
		{"a request in the body of HEAD", "HEAD /healthz HTTP/1.1⏎Host: localhost⏎" + length(head+body) + head + body, 200, -1, 0, false},
		{"a request behind what HTTP/2 would upgrade", "GET /healthz HTTP/1.1⏎Host: localhost⏎Connection: Upgrade, HTTP2-Settings⏎Upgrade: h2c⏎HTTP2-Settings: AAMAAABkAAQAAP__⏎⏎", 200, 0, 0, false},
		{"a request behind what a WebSocket would upgrade", "GET /healthz HTTP/1.1⏎Host: localhost⏎Connection: Upgrade⏎Upgrade: websocket⏎Sec-WebSocket-Version: 777⏎⏎", 200, 0, 0, false},
		{"expects what nobody does", head + "Expect: 200-ok⏎" + body, 200, 0, 1, false},
		{"expects and is silent about the length", head + "Expect: 100-continue⏎⏎" + head + body, 411, 21001, 0, true},
		{"two blanks in the request line", "POST  /api HTTP/1.1⏎Host: localhost⏎" + body, 400, 21001, 0, true},
		{"a tab in the request line", "POST\t/api HTTP/1.1⏎Host: localhost⏎" + body, 400, 21001, 0, true},
		{"more behind the version", "POST /api HTTP/1.1 x⏎Host: localhost⏎" + body, 400, 21001, 0, true},
		{"a line in the target", "POST /api\nX: HTTP/1.1⏎Host: localhost⏎" + body, 400, 21001, 0, true},
		{"NUL in the target", "POST /api\x00 HTTP/1.1⏎Host: localhost⏎" + body, 400, 21001, 0, true},
		{"a fragment", "POST /api#x HTTP/1.1⏎Host: localhost⏎" + body, 404, 21001, 0, false},
		{"empty lines before the request", "⏎⏎" + head + body, 200, 0, 1, false},
		{"a Host with a user", "POST /api HTTP/1.1⏎Host: evil@localhost⏎" + body, 421, 21001, 0, false},
		{"an empty Host", "POST /api HTTP/1.1⏎Host:⏎" + body, 400, 21001, 0, true},
		{"a small letter in HTTP", "POST /api http/1.1⏎Host: localhost⏎" + body, 400, 21001, 0, true},
		{"HTTP/1.10", "POST /api HTTP/1.10⏎Host: localhost⏎" + body, 400, 21001, 0, true},
		{"a letter of eight bits in a name", head + "X-\xe9: 1⏎" + body, 400, 21001, 0, true},
		{"an empty name", head + ": 1⏎" + body, 400, 21001, 0, true},
		{"not HTTP at all", "\x16\x03\x01\x02\x00\x01\x00\x01⏎⏎", 400, 21001, 0, true},
	}
}

func TestRequests(t *testing.T) {
	for _, c := range wireCases() {
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
