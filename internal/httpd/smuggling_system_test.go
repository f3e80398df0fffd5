//go:build linux && system

package httpd_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/httpd"
	"sessiond/internal/logging"
)

// Whatever stands on the wire, straight or through the proxies as docs/proxies.md
// sets them up:
//
//   - what the Handler is asked is what the sender gets the answers to, in order:
//     no request is found where the one before the server saw none,
//   - the next client of the proxy, on the same connections to the server, gets
//     the answers to his own requests,
//   - each request counts against the address it comes from,
//   - without a proxy a refusal for framing is the last answer of its connection.
func TestSystemSmuggling(t *testing.T) {
	for name, before := range map[string]func(*testing.T, string) string{
		"direct":  func(_ *testing.T, server string) string { return server },
		"nginx":   nginx,
		"haproxy": haproxy,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := &witness{}
			server := behindProxies(t, seen)
			l := &line{seen: seen, address: before(t, server), direct: name == "direct"}
			l.victim(t)
			more := 0
			for n, c := range wireCases() {
				t.Run(c.name, func(t *testing.T) {
					if l.attack(t, n, c) > max(1, c.handled) {
						more++
					}
					l.victim(t)
				})
			}
			t.Logf("%d cases; in %d what comes in front saw more requests than the server would have", len(wireCases()), more)
		})
	}
}

// A line leads to a server, perhaps through a proxy.
type line struct {
	seen    *witness
	address string
	direct  bool
	served  int // how many victims there were
}

const (
	attacker = "127.0.0.8"
	victim   = "127.0.0.9"
)

// attack sends a case and returns how many answers there were.
func (l *line) attack(t *testing.T, n int, c wireCase) int {
	t.Helper()
	nc := l.dial(t, attacker)
	defer func() { _ = nc.Close() }()
	wire := marked(strings.ReplaceAll(c.wire, "⏎", "\r\n"), n)
	if _, err := io.WriteString(nc, wire); err != nil {
		t.Logf("cut while sending: %v", err)
	}
	method, _, _ := strings.Cut(wire, " ")
	answers := l.receive(t, nc, method)
	var got []string
	for i, a := range answers {
		if a.saw != nil {
			got = append(got, *a.saw)
		}
		if l.direct && i == max(1, c.handled)-1 && (a.status != c.status || a.close != c.closes) {
			t.Errorf("status %d, closes %t, want %d, %t", a.status, a.close, c.status, c.closes)
		}
	}
	if l.direct && len(answers) != max(1, c.handled) {
		t.Errorf("%d answers, want %d", len(answers), max(1, c.handled))
	}
	if handled := l.seen.take(t, attacker); !slices.Equal(handled, got) {
		t.Errorf("the server handled %q, but the answers are about %q", handled, got)
	}
	return len(answers)
}

// victim sends two requests on a connection and wants the answers to them.
func (l *line) victim(t *testing.T) {
	t.Helper()
	nc := l.dial(t, victim)
	defer func() { _ = nc.Close() }()
	r := bufio.NewReader(nc)
	for range 2 {
		l.served++
		mine := fmt.Sprint("victim ", l.served)
		if _, err := fmt.Fprintf(nc, "POST /api HTTP/1.1\r\nHost: sessions.example.com\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(mine), mine); err != nil {
			t.Fatal(err)
		}
		a, err := readWitnessed(r, "POST")
		if err != nil || a.status != 200 || a.saw == nil || *a.saw != mine {
			t.Fatalf("the next client is answered %+v, %v", a, err)
		}
		if handled := l.seen.take(t, victim); !slices.Equal(handled, []string{mine}) {
			t.Fatalf("for one request of the next client the server handled %q", handled)
		}
	}
}

func (l *line) dial(t *testing.T, from string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	nc, err := d.DialContext(t.Context(), "tcp", l.address)
	if err != nil {
		t.Fatal(err)
	}
	return nc
}

// receive reads answers until the end of the connection, or until there are as
// many as requests were handled and nothing has come for a while.
func (l *line) receive(t *testing.T, nc net.Conn, method string) []witnessed {
	t.Helper()
	const quiet, none, most = 80 * time.Millisecond, 2 * time.Second, 20 * time.Second
	var text []byte
	buffer := make([]byte, 64<<10)
	for begun := time.Now(); ; {
		if err := nc.SetReadDeadline(time.Now().Add(quiet)); err != nil {
			t.Fatal(err)
		}
		n, err := nc.Read(buffer)
		text = append(text, buffer[:n]...)
		if err == nil {
			continue
		}
		answers := witnessedIn(text, method)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return answers
		}
		about := 0
		for _, a := range answers {
			if a.saw != nil {
				about++
			}
		}
		waited := time.Since(begun)
		if len(answers) > 0 && about >= l.seen.count() || len(answers) == 0 && l.seen.count() == 0 && waited > none || waited > most {
			return answers
		}
	}
}

// marked gives each {} in a case a text of its own, of the same length.
func marked(wire string, n int) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	for i := 3 * n; strings.Contains(wire, "{}"); i++ {
		wire = strings.Replace(wire, "{}", string([]byte{digits[i/len(digits)], digits[i%len(digits)]}), 1)
	}
	return wire
}

// A witness answers each request with its body, and remembers it.
type witness struct {
	mu      sync.Mutex
	handled []handled
}

type handled struct {
	body    string
	address netip.Addr
}

func (w *witness) Serve(_ context.Context, r *api.Request, dst []byte) api.Answer {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handled = append(w.handled, handled{string(r.Body), r.Address})
	return api.Answer{Body: fmt.Appendf(dst, `{"result":{"saw":%q},"errorCode":0,"errorMessage":""}`, r.Body)}
}

func (w *witness) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.handled)
}

// take returns what was handled since the last time, all of it from one address.
func (w *witness) take(t *testing.T, from string) (bodies []string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.handled {
		bodies = append(bodies, h.body)
		if h.address != netip.MustParseAddr(from) {
			t.Errorf("%q counts against %v, want %s", h.body, h.address, from)
		}
	}
	w.handled = nil
	return bodies
}

// witnessed is an answer, and what request it is about where a witness gave it.
type witnessed struct {
	status int
	close  bool
	saw    *string
}

// witnessedIn reads all whole answers of a text.
func witnessedIn(text []byte, method string) (answers []witnessed) {
	for r := bufio.NewReader(bytes.NewReader(text)); ; method = "POST" {
		a, err := readWitnessed(r, method)
		if err != nil {
			return answers
		}
		answers = append(answers, a)
	}
}

func readWitnessed(r *bufio.Reader, method string) (a witnessed, err error) {
	for a.status < 200 {
		response, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return a, err
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return a, err
		}
		a.status, a.close = response.StatusCode, response.Close
		var about struct{ Result struct{ Saw *string } }
		if json.Unmarshal(body, &about) == nil {
			a.saw = about.Result.Saw
		}
	}
	return a, nil
}

// proxyFiles are what docs/proxies.md shows.
const proxyFiles = "../../testdata/proxies/"

// behindProxies starts a server under the configuration that the page shows, on a
// port of its own, and returns its address.
func behindProxies(t *testing.T, h httpd.Handler) string {
	t.Helper()
	text, err := os.ReadFile(proxyFiles + "services.json")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse(text, "services.json")
	if err != nil {
		t.Fatal(err)
	}
	cfg.AllowedOrigins = configuration().AllowedOrigins // some cases want one
	cfg.AllowedHosts = append(cfg.AllowedHosts, configuration().AllowedHosts...)
	cfg.Listeners[0].Port = 0
	s := httpd.New(httpd.Options{Holder: config.NewHolder(cfg), Log: logging.Nop()}, h)
	run(t, s, cfg.Listeners...)
	return s.Addrs()[0].String()
}

// nginx starts nginx in front of a server and returns its address.
func nginx(t *testing.T, server string) string {
	t.Helper()
	dir := t.TempDir()
	site, address := onPorts(t, "nginx.conf", server)
	main := fmt.Sprintf("daemon off;\nmaster_process off;\npid %[1]s/pid;\nerror_log %[1]s/errors;\nevents {}\nhttp {\naccess_log off;\n", dir)
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		main += fmt.Sprintf("%s_temp_path %s/%s;\n", kind, dir, kind)
	}
	file := filepath.Join(dir, "main.conf")
	if err := os.WriteFile(file, []byte(main+site+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	runProxy(t, address, "nginx", "-e", filepath.Join(dir, "errors"), "-p", dir, "-c", file)
	return address
}

// haproxy starts HAProxy in front of a server and returns its address.
func haproxy(t *testing.T, server string) string {
	t.Helper()
	text, address := onPorts(t, "haproxy.cfg", server)
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	runProxy(t, address, "haproxy", "-db", "-f", file)
	return address
}

// onPorts returns a file of the page with the server's address and a free one for
// the proxy, which is returned too.
func onPorts(t *testing.T, name, server string) (text, address string) {
	t.Helper()
	raw, err := os.ReadFile(proxyFiles + name)
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for port, with := range map[string]string{"127.0.0.1:8000": address, "127.0.0.1:8080": server} {
		if !bytes.Contains(raw, []byte(port)) {
			t.Fatalf("%s does not name %s", name, port)
		}
		raw = bytes.ReplaceAll(raw, []byte(port), []byte(with))
	}
	return string(raw), address
}

// runProxy runs a program until the end of the test, and waits until it listens.
func runProxy(t *testing.T, address, program string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		path = "/usr/sbin/" + program
	}
	out := &buffer{}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (make deps installs it)", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if nc, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			_ = nc.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen: %s", program, out)
		}
	}
}
