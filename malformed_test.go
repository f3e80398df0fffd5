package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/httpd"
	"sessiond/internal/logging"
	"sessiond/internal/wire"
	"sessiond/store/mem"
)

// TestMalformedEnvelopes sends 100,000 requests that grammar and chance have made,
// over sockets that are kept, with a valid one after each ten. Every answer is
// JSON with members of ours, of no status from 500 on; none is 21999; the valid
// ones are answered as ever.
func TestMalformedEnvelopes(t *testing.T) {
	const total, connections = 100_000 / lessUnderRace, 4
	d := openDoor(t, "")
	d.tail.Drain() // nobody waits for what does not come
	var wg sync.WaitGroup
	var mu sync.Mutex
	codes := map[api.Code]int{}
	for n := range connections {
		wg.Go(func() {
			seen, err := d.harass(uint64(n), total/connections)
			mu.Lock()
			defer mu.Unlock()
			for code, times := range seen {
				codes[code] += times
			}
			if err != nil {
				t.Errorf("connection %d: %v", n, err)
			}
		})
	}
	wg.Wait()
	t.Logf("codes: %v", codes)
	for _, code := range []api.Code{
		api.OK, api.InvalidAuthToken, api.BadEnvelope, api.UnknownAPI, api.UnknownAction, api.UnknownParam, api.MissingParam, api.BadParam,
		api.DuplicateMember, api.TooLarge, api.UnsupportedVersion, api.LoginFailed, api.PermissionDenied, api.NotFound,
	} {
		if codes[code] == 0 {
			t.Errorf("none was answered with %d %s", code, code.Info().Name)
		}
	}
	if log := d.log.String(); strings.Contains(log, "panic") {
		t.Errorf("there was a panic: %s", log[strings.Index(log, "panic"):][:500])
	}
}

// What a client with curl may get wrong, each with an answer of its own.
func TestRawRequests(t *testing.T) {
	const ping = `{"action":"pingSession"}`
	d := openDoor(t, "")
	for _, tt := range []struct {
		name, method, path, contentType, body string
		status                                int
		code                                  api.Code
		says                                  string
	}{
		{"a request", "POST", "/api", "application/json", ping, 200, api.OK, ""},
		{"what curl -d sends", "POST", "/api", "application/x-www-form-urlencoded", ping, 200, api.OK, ""},
		{"another content type", "POST", "/api", "text/plain", ping, 415, api.BadEnvelope, "Content-Type: application/json"},
		{"GET", "GET", "/api", "", "", 405, api.BadEnvelope, "POST"},
		{"PUT", "PUT", "/api", "application/json", ping, 405, api.BadEnvelope, "POST"},
		{"another path", "POST", "/api/v1", "application/json", ping, 404, api.BadEnvelope, "GET /"},
		{"a query", "POST", "/api?authToken=x", "application/json", ping, 400, api.BadEnvelope, "query"},
		{"5 MB", "POST", "/api", "application/json", strings.Repeat(" ", 5<<20), 413, api.TooLarge, "maxRequestBytes"},
		{"nothing", "POST", "/api", "application/json", "", 400, api.BadEnvelope, "JSON object"},
		{"bad JSON", "POST", "/api", "application/json", `{"action":`, 400, api.BadEnvelope, "ends too early"},
		{"two JSON values", "POST", "/api", "application/json", ping + "\n" + ping, 400, api.BadEnvelope, "exactly one"},
		{"bad UTF-8", "POST", "/api", "application/json", "{\"action\":\"ping\xff\"}", 400, api.BadEnvelope, "UTF-8"},
		{"an unknown api", "POST", "/api", "application/json", `{"api":"mq","action":"pingSession"}`, 200, api.UnknownAPI, "admin, session or hub"},
		{"an unknown action", "POST", "/api", "application/json", `{"action":"fly"}`, 200, api.UnknownAction, "listActions"},
		{"an unknown param", "POST", "/api", "application/json", `{"action":"pingSession","params":{"x":1}}`, 200, api.UnknownParam, "listActions"},
		{"a missing password", "POST", "/api", "application/json", `{"action":"createSession","params":{"username":"admin"}}`, 200, api.MissingParam, "password"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), tt.method, "http://"+d.address+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if tt.contentType != "" {
				r.Header.Set("Content-Type", tt.contentType)
			}
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			response, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			if err = errors.Join(err, response.Body.Close()); err != nil {
				t.Fatal(err)
			}
			code, err := codeOfAnswer(body)
			if err != nil || response.StatusCode != tt.status || code != tt.code || !strings.Contains(string(body), tt.says) {
				t.Errorf("status %d, %v, want %d with code %d, saying %q:\n%s", response.StatusCode, err, tt.status, tt.code, tt.says, body)
			}
		})
	}
	t.Run("too many connections", func(t *testing.T) {
		d := openDoor(t, `{"maxConnectionsPerIpAddress":3}`)
		var codes []api.Code
		for range 4 {
			c := &caller{address: d.address}
			defer c.close()
			_, body, err := c.post([]byte(ping))
			if err != nil {
				t.Fatal(err)
			}
			code, err := codeOfAnswer(body)
			if err != nil {
				t.Fatal(err)
			}
			codes = append(codes, code)
		}
		if want := []api.Code{0, 0, 0, api.RateLimited}; !slices.Equal(codes, want) {
			t.Errorf("codes %v, want %v", codes, want)
		}
	})
}

// A door is a stage behind a socket.
type door struct {
	*stage
	address string
	log     *buffered
}

func openDoor(t *testing.T, services string) *door {
	d := &door{log: &buffered{}}
	log := logging.New(d.log, "error", logging.JSON, func() time.Time { return dawn })
	s, err := newStage(t.Context(), props{store: mem.New(), hasher: cheapHasher(t), config: services, logins: []string{"alice", "bob", "admin"}, log: log})
	if err != nil {
		t.Fatal(err)
	}
	d.stage = s
	front := httpd.New(httpd.Options{Holder: s.config, Log: log}, s.dispatcher)
	if err := front.Listen(t.Context(), []config.Listener{{Enabled: true, Protocol: config.HTTP}}); err != nil {
		t.Fatal(err)
	}
	d.address = front.Addrs()[0].String()
	served := make(chan error, 1)
	go func() { served <- front.Serve() }()
	t.Cleanup(func() {
		if err := errors.Join(front.Shutdown(context.WithoutCancel(t.Context())), <-served); err != nil {
			t.Error(err)
		}
	})
	return d
}

// harass sends n malformed requests on one connection, and counts the codes of the
// answers.
func (d *door) harass(seed uint64, n int) (map[api.Code]int, error) {
	codes := map[api.Code]int{}
	h := &harasser{
		grammar: newGrammar(7, seed, d.byName["token:alice"], d.byName["token:admin"]), address: d.address, valid: d.valid,
		saw: func(seen []api.Code, _ time.Duration) {
			for _, code := range seen {
				codes[code]++
			}
		},
	}
	return codes, h.send(n)
}

// A harasser sends malformed requests on one connection.
type harasser struct {
	*grammar
	address string
	valid   func(c *caller, i int) error            // makes a valid request, after each ten others
	saw     func(codes []api.Code, d time.Duration) // is told of each answer
	busy    bool                                    // the server may be, and say so
}

func (h *harasser) send(n int) error {
	c := &caller{address: h.address}
	defer c.close()
	for i := range n {
		body := h.request()
		if h.busy && bytes.Contains(bytes.ToLower(body), []byte("watchsessions")) {
			continue // it waits for a minute
		}
		begun := time.Now()
		status, answer, err := c.post(body)
		if err != nil {
			return fmt.Errorf("request %d: %w: %.300q", i, err, body)
		}
		took := time.Since(begun)
		if h.busy && status == http.StatusServiceUnavailable {
			if code, err := codeOfAnswer(answer); err != nil || code != api.Overloaded {
				return fmt.Errorf("request %d: status 503, %w:\n%.300q\nis answered\n%.600q", i, err, body, answer)
			}
			continue
		}
		seen, err := judge(status, answer)
		if err != nil {
			return fmt.Errorf("request %d: status %d, %w:\n%.300q\nis answered\n%.600q", i, status, err, body, answer)
		}
		h.saw(seen, took)
		if i%10 == 9 {
			if err := h.valid(c, i); err != nil {
				return fmt.Errorf("after request %d, %.300q: %w", i, body, err)
			}
		}
	}
	return nil
}

// valid makes a request whose answer is known.
func (d *door) valid(c *caller, i int) error {
	status, got, err := c.post(fmt.Appendf(nil, `{"action":"validate","authToken":%q,"requestId":%d}`, d.byName["token:bob"], i))
	if err != nil {
		return err
	}
	want := fmt.Sprintf(`{"result":{"valid":true,"code":"VALID","sessionHandle":%q,"accountId":%q,"username":"bob","realm":"native","roles":[],"realmRoles":[],"rolesMode":"live",`+
		`"permanentSession":false,"authMethods":["password"],"authenticationTimestamp":"2026-03-02T08:15:00Z","maxIdleExpirationTimestamp":"2026-03-02T09:15:00Z"},`+
		`"errorCode":0,"errorMessage":"","requestId":%d,"authToken":%q}`, d.byName["handle:bob"], d.byName["id:bob"], i, d.byName["token:bob"])
	if status != 200 || string(got) != want {
		return fmt.Errorf("the valid request has status %d and the answer\n%s\nwant\n%s", status, got, want)
	}
	return nil
}

// judge says what is wrong with an answer, whatever was asked; else its codes.
func judge(status int, body []byte) ([]api.Code, error) {
	root, faults := wire.ParseTree(body)
	if len(faults) > 0 {
		return nil, errors.New("no JSON: " + faults[0].Message)
	}
	answers := []*wire.Node{root}
	if root.Kind == wire.Array {
		answers = root.Items
	}
	var codes []api.Code
	for _, a := range answers {
		for _, m := range a.Members {
			if !slices.Contains([]string{"result", "errorCode", "errorMessage", "requestId", "authToken", "errorData", "debugInfo"}, m.Name) {
				return nil, errors.New("an answer has a member that none has: " + m.Name)
			}
		}
		code := a.Member("errorCode")
		if code == nil {
			return nil, errors.New("an answer without errorCode")
		}
		number, _ := code.Int64()
		if api.Code(number).Info().Code != api.Code(number) || api.Code(number) == api.Internal {
			return nil, fmt.Errorf("errorCode %d", number)
		}
		codes = append(codes, api.Code(number))
	}
	if len(codes) == 0 || status != 200 && status != 400 && status != 413 {
		return nil, errors.New("that is not to be")
	}
	return codes, nil
}

func codeOfAnswer(body []byte) (api.Code, error) {
	var answer struct {
		ErrorCode *api.Code `json:"errorCode"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.ErrorCode == nil {
		return 0, fmt.Errorf("no answer of ours: %q, %w", body, err)
	}
	return *answer.ErrorCode, nil
}

// A caller posts on a connection that it keeps, unless the server closes it.
type caller struct {
	address string
	conn    net.Conn
	read    *bufio.Reader
}

func (c *caller) post(body []byte) (status int, answer []byte, err error) {
	if c.conn == nil {
		if c.conn, err = net.Dial("tcp", c.address); err != nil {
			return 0, nil, err
		}
		c.read = bufio.NewReader(c.conn)
	}
	head := fmt.Appendf(nil, "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(body))
	if _, err := c.conn.Write(append(head, body...)); err != nil {
		return 0, nil, err
	}
	response, err := http.ReadResponse(c.read, nil)
	if err != nil {
		return 0, nil, err
	}
	answer, err = io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); response.Close {
		c.close()
	}
	return response.StatusCode, answer, err
}

func (c *caller) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// A grammar makes requests: of the members that the schemas have, most with a
// value of the right type, then spoils them by members, and then by bytes.
type grammar struct {
	*rand.Rand
	actions []dispatch.Description
	tokens  []string
	token   string // of this envelope
}

func newGrammar(seed1, seed2 uint64, tokens ...string) *grammar {
	return &grammar{Rand: rand.New(rand.NewPCG(seed1, seed2)), actions: describeActions(), tokens: tokens}
}

func (g *grammar) oneIn(n int) bool { return g.IntN(n) == 0 }

func pick[T any](g *grammar, from ...T) T { return from[g.IntN(len(from))] }

func (g *grammar) request() []byte {
	var b []byte
	g.token = pick(g, g.tokens...)
	switch {
	case g.oneIn(30):
		b = append(b, '[')
		for i := range g.IntN(4) {
			if i > 0 {
				b = append(b, ',')
			}
			b = g.envelope(b)
		}
		b = append(b, ']')
	case g.oneIn(60):
		b = g.junk(b, 0)
	case g.oneIn(200):
		b = g.bomb(b)
	case g.oneIn(50): // one after the other they have made a decoder panic that keeps its state
		return append(b, pick(g, `[{"x":1},{"y":`, `{"\`)...)
	default:
		b = g.envelope(b)
	}
	for g.oneIn(3) {
		b = g.spoil(b)
	}
	return b
}

func (g *grammar) envelope(b []byte) []byte {
	action := g.actions[g.IntN(len(g.actions))]
	if action.Name == "listActions" && !g.oneIn(9) { // its answer is long
		action = g.actions[0]
	}
	g.token = pick(g, g.tokens...)
	if slices.Contains([]string{"deleteSession", "revokeSessions", "revokeAllSessions", "logoutByUser", "logoutByHandle", "endSession", "removeSession", "manageService"}, action.Name) {
		g.token = g.token[:63] + "-" // or the others would be without it, or without a server
	}
	b = append(b, '{')
	member := func(name, value string) {
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = append(wire.AppendString(b, name), ':')
		b = append(b, value...)
	}
	if !g.oneIn(40) {
		member("action", string(wire.AppendString(nil, pick(g, action.Name, action.Name, action.Name, strings.ToUpper(action.Name), "fly"))))
	}
	if !g.oneIn(8) {
		token := pick(g, g.token, g.token, g.token, g.token, g.token, g.token, g.token, g.token, "", "nonsense", g.token[:63], strings.ToUpper(g.token))
		member("authToken", string(wire.AppendString(nil, token)))
	}
	for _, m := range []struct {
		name   string
		values []string
	}{
		{"api", []string{`"admin"`, `"hub"`, `"session"`, `"db"`, `null`, `7`}},
		{"requestId", []string{`1`, `"x"`, `null`, `{"a":[1e999]}`, `-0.0`, `"` + strings.Repeat("y", 250) + `"`, `"` + strings.Repeat("y", 300) + `"`}},
		{"apiVersion", []string{`"1.0"`, `"2.0"`, `1`, `""`}},
		{"debug", []string{`"max"`, `"none"`, `"all"`, `true`}},
		{"responseOptions", []string{`{"numberFormat":"string"}`, `{"dataFormat":"arrays"}`, `{"omit":["result"]}`, `{"includeFields":["username"]}`, `{"omit":7}`, `[]`}},
		{"unknown\u2028", []string{`1`, `{"a":{"a":{}}}`, `"\ud83d\ude00"`}},
	} {
		if g.oneIn(5) {
			member(m.name, pick(g, m.values...))
		}
	}
	if !g.oneIn(6) {
		member("params", string(g.object(nil, action.Params, 0)))
	}
	return append(b, '}')
}

// object makes an object of these members.
func (g *grammar) object(b []byte, fields []wire.Field, depth int) []byte {
	b = append(b, '{')
	next := func(name string) {
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = append(wire.AppendString(b, name), ':')
	}
	for _, f := range fields {
		if !f.Required && !g.oneIn(4) || f.Required && g.oneIn(12) {
			continue
		}
		times := 1
		if g.oneIn(60) {
			times = 2
		}
		for range times {
			next(pick(g, f.Name, f.Name, f.Name, f.Name, f.Name, f.Name, f.Name, strings.ToUpper(f.Name)))
			if b = g.value(b, f, f.Type, depth); b[len(b)-1] == '{' {
				b = append(b, '}')
			}
		}
	}
	if g.oneIn(15) {
		next(pick(g, "x", "", "a/b", "~", "__proto__", "\x00", strings.Repeat("n", 300)))
		b = g.junk(b, depth)
	}
	return append(b, '}')
}

// value makes a value of a type, most of the time.
func (g *grammar) value(b []byte, f wire.Field, kind string, depth int) []byte {
	if g.oneIn(8) {
		return g.junk(b, depth)
	}
	switch {
	case len(f.Enum) > 0 && kind == "string":
		return wire.AppendString(b, pick(g, f.Enum...))
	case kind == "boolean":
		return append(b, pick(g, "true", "false")...)
	case kind == "integer":
		return append(b, pick(g, "0", "1", "-1", "60", "1000", "99999999999999999999", "-9223372036854775808", "1.0", "1e3", "-0")...)
	case kind == "timestamp":
		return append(b, pick(g, `"2026-03-02T08:15:00Z"`, `"2026-03-02T08:15:00+14:00"`, `"0000-00-00T00:00:00Z"`, `"9999-12-31T23:59:60Z"`, `"now"`)...)
	case kind == "object":
		return g.object(b, f.Fields, depth+1)
	case strings.HasPrefix(kind, "array of "):
		b = append(b, '[')
		for i := range g.IntN(4) {
			if i > 0 {
				b = append(b, ',')
			}
			b = g.value(b, f, strings.TrimPrefix(kind, "array of "), depth+1)
		}
		return append(b, ']')
	}
	return wire.AppendString(b, pick(g, "alice", "admin", "nobody", "", "sh_"+g.token[6:28], "sh_0000000000000000000001", g.token, "\u202e\x00é", strings.Repeat("z", 100)))
}

// junk makes any value.
func (g *grammar) junk(b []byte, depth int) []byte {
	if depth > 4 {
		return append(b, "null"...)
	}
	switch g.IntN(6) {
	case 0:
		return append(b, pick(g, "null", "true", "false")...)
	case 1:
		return append(b, pick(g, "0", "-1", "1e400", "0.1e-400", strings.Repeat("9", 400), "-"+strings.Repeat("1", 20)+"."+strings.Repeat("3", 50))...)
	case 2:
		return wire.AppendString(b, pick(g, "", "x", "\u2029", strings.Repeat("é", 200), `\`, g.token))
	case 3:
		b = append(b, '[')
		for i := range g.IntN(4) {
			if i > 0 {
				b = append(b, ',')
			}
			b = g.junk(b, depth+1)
		}
		return append(b, ']')
	case 4:
		b = append(b, '{')
		for i := range g.IntN(4) {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(wire.AppendString(b, pick(g, "a", "b", "username", "")), ':')
			b = g.junk(b, depth+1)
		}
		return append(b, '}')
	}
	return append(b, pick(g, "NaN", "+1", "01", ".5", "'x'", "tru", `"\ud800"`, `"\x"`, "\"\t\"", "/*x*/", "")...)
}

// bomb makes what is deep, long or wide.
func (g *grammar) bomb(b []byte) []byte {
	n := pick(g, 30, 31, 32, 33, 1000, 20_000)
	switch g.IntN(5) {
	case 0:
		return append(append(append(b, `{"action":"pingSession","x":`...), strings.Repeat("[", n)+strings.Repeat("]", n)...), '}')
	case 1:
		return append(b, strings.Repeat(`{"a":`, n)...)
	case 2:
		return append(append(append(b, `{"action":"pingSession","x":[0`...), strings.Repeat(",0", n)...), "]}"...)
	case 3:
		return append(append(append(b, `{"action":"`...), strings.Repeat("a", 10*n)...), `"}`...)
	}
	return append(append(append(b, `[{"action":"pingSession"}`...), strings.Repeat(`,{"action":"pingSession"}`, n%200)...), ']')
}

// spoil damages bytes.
func (g *grammar) spoil(b []byte) []byte {
	if len(b) == 0 {
		return b
	}
	i := g.IntN(len(b))
	switch g.IntN(7) {
	case 0:
		return b[:i]
	case 1:
		return slices.Insert(b, i, pick(g, byte('{'), '}', '[', ']', ',', ':', '"', '\\', 0, 0xff, 0xc0, ' '))
	case 2:
		return slices.Delete(b, i, i+1)
	case 3:
		b[i] ^= byte(1 << g.IntN(8))
		return b
	case 4:
		end := min(len(b), i+1+g.IntN(20))
		return slices.Insert(b, i, bytes.Clone(b[i:end])...)
	case 5:
		return append(b, pick(g, " ", "x", "{}", "\n\n", ",", "\x00", "\ufeff")...)
	}
	return append([]byte(pick(g, " ", "\ufeff", "x", "[", "\n")), b...)
}
