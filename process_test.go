//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sessiond/internal/cli"
)

// Tests of the process as its user meets it: a child that is started, spoken to
// over HTTP, killed and started again on the same data folder.

// TestMain is a server's worker when a server that runs in this binary starts it once
// more.
func TestMain(m *testing.M) {
	_, hashes := cli.HashWorker()
	if _, checks := cli.CheckWorker(); len(os.Args) > 1 && (os.Args[1] == hashes || os.Args[1] == checks) {
		main()
	}
	m.Run()
}

// TestMainProcess is the server when another test runs this binary once more;
// see home.start. On its own it does nothing.
func TestMainProcess(*testing.T) {
	if os.Getenv(childMark) != "" {
		os.Args = append([]string{"sessiond"}, flag.Args()...)
		main()
	}
}

const (
	childMark     = "SESSIOND_TEST_PROCESS"
	adminPassword = "correct horse battery staple"
	issuerName    = "issuer"
)

// home is where a server lives: its services.json and its data folder.
type home struct {
	config, data string
	flags        []string // of serve, beside those two
	program      string   // empty: this binary
}

func newHome(t *testing.T, services map[string]any) home {
	t.Helper()
	h := home{config: filepath.Join(t.TempDir(), "services.json"), data: filepath.Join(t.TempDir(), "data")}
	text, err := json.Marshal(services)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

// services is a services.json on a free port, with a trusted realm app and the
// given members of jsonActionApiDefaults over limits that nobody reaches.
func services(defaults map[string]any) map[string]any {
	merged := map[string]any{
		"maxJsonApiSessions": 0, "maxJsonApiSessionsPerIpAddress": 0, "maxJsonApiSessionsPerUsername": 0,
		"enablePermanentJsonApiSessions": true,
	}
	maps.Copy(merged, defaults)
	return map[string]any{
		"listeners":             []any{map[string]any{"serviceName": "http", "address": "127.0.0.1", "port": 0, "protocol": "http", "enabled": true}},
		"realms":                []any{map[string]any{"name": "app", "type": "trusted"}},
		"jsonActionApiDefaults": merged,
	}
}

// process is a running server.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	url    string
	output *output       // nil where log is
	log    string        // the file of its log, if it has one
	exited chan struct{} // closed once it is gone and reaped, and its output taken
	ready  time.Duration // from its start to the first 200 of /readyz
}

// start runs a server until it is ready, under a command such as prlimit if there
// is one.
func (h home) start(t *testing.T, under ...string) *process {
	t.Helper()
	p := h.launch(t, under...)
	begun := time.Now()
	const patience = 30 * time.Second
	select {
	case p.url = <-p.output.address:
	case <-p.exited:
		t.Fatalf("the server ended before it listened:\n%s", p.output)
	case <-time.After(patience):
		t.Fatalf("the server did not listen within %v:\n%s", patience, p.output)
	}
	for {
		response, err := http.Get(p.url + "/readyz") //nolint:noctx // loopback, and the server is killed in the end
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Since(begun) > patience {
			t.Fatalf("the server was not ready within %v:\n%s", patience, p.output)
		}
	}
	p.ready = time.Since(begun)
	return p
}

// launch runs a server and waits for nothing.
func (h home) launch(t *testing.T, under ...string) *process {
	t.Helper()
	program := []string{h.program}
	if h.program == "" {
		program = []string{os.Args[0], "-test.run=^TestMainProcess$", "--"}
	}
	args := slices.Concat(under, program, []string{"serve", "--config", h.config, "--data", h.data}, h.flags)
	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // it has ends of its own: kill, terminate
	cmd.Env = append(os.Environ(), childMark+"=1", "SESSIOND_ADMIN_PASSWORD="+adminPassword)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that is killed leaves nothing running
	p := &process{t: t, cmd: cmd, output: &output{address: make(chan string, 1), whole: make(chan struct{})}, exited: make(chan struct{})}
	read, write := io.Pipe()
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.output.take(read)
	go func() {
		_ = cmd.Wait() // how it ended, ProcessState tells
		_ = write.Close()
		<-p.output.whole
		close(p.exited)
	}()
	t.Cleanup(p.kill)
	return p
}

// kill ends the server as a power cut would, as far as the process is concerned.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may be gone already
	<-p.exited
}

// terminate asks the server to end, and returns its exit code and how long it took.
func (p *process) terminate() (code int, took time.Duration) {
	p.t.Helper()
	begun := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.exited:
	case <-time.After(30 * time.Second):
		p.t.Fatalf("the server did not end after SIGTERM:\n%s", p.output)
	}
	return p.cmd.ProcessState.ExitCode(), time.Since(begun)
}

const (
	outputKept  = 20_000 // lines
	outputShown = 40     // of them
)

// output keeps the last lines of what a server writes, and finds its address.
type output struct {
	address chan string
	whole   chan struct{} // closed once it has all

	mu    sync.Mutex
	lines []string
}

func (o *output) take(r io.Reader) {
	defer close(o.whole)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var record struct{ Message, Address string }
		if json.Unmarshal(lines.Bytes(), &record) == nil && record.Message == "listening" {
			o.address <- "http://" + record.Address
		}
		o.mu.Lock()
		if o.lines = append(o.lines, lines.Text()); len(o.lines) > outputKept {
			o.lines = o.lines[1:]
		}
		o.mu.Unlock()
	}
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.lines[max(0, len(o.lines)-outputShown):], "\n")
}

// client speaks to a server. Each has connections of its own, so that clients
// do not wait for one another.
type client struct {
	url   string
	http  *http.Client
	token string
}

func newClient(p *process, token string) *client {
	return &client{url: p.url + "/api", token: token, http: &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// params are the params of an action.
type params map[string]any

// refusal is an answer whose errorCode is not 0.
type refusal struct {
	Code    int    `json:"errorCode"`
	Message string `json:"errorMessage"`
}

func (r *refusal) Error() string { return fmt.Sprintf("errorCode %d: %s", r.Code, r.Message) }

// codeOf returns the errorCode of an answer: 0 for nil, -1 where there was none.
func codeOf(err error) int {
	if err == nil {
		return 0
	}
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.Code
	}
	return -1
}

// call sends one envelope with the client's token and reads result into result. The error is a
// *refusal if the server answered; anything else means that the outcome is
// unknown.
func (c *client) call(ctx context.Context, action string, p params, result any) error {
	envelope := map[string]any{"action": action, "params": p}
	if c.token != "" {
		envelope["authToken"] = c.token
	}
	body, err := json.Marshal(envelope)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	var answer struct {
		refusal
		Result json.RawMessage `json:"result"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return fmt.Errorf("HTTP %d: %w in %q", response.StatusCode, err, text)
	}
	if answer.Code != 0 {
		return &answer.refusal
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Result, result)
}

// must is call for what has to succeed.
func (c *client) must(t *testing.T, action string, p params, result any) {
	t.Helper()
	if err := c.call(t.Context(), action, p, result); err != nil {
		t.Fatalf("%s: %v", action, err)
	}
}

// credential is what createSession answers.
type credential struct {
	AuthToken     string
	SessionHandle string
	ClientHandle  string
}

// staff are the sessions that the tests themselves need, and what they are for.
type staff struct {
	admin     credential // sees and revokes all
	issuer    credential // creates API keys, which keys may not
	issuerKey credential // creates sessions
}

// hire logs the staff in.
func hire(t *testing.T, p *process) staff {
	t.Helper()
	logIn := func(p *process, username string, permanent bool) (made credential) {
		c := newClient(p, "")
		defer c.close()
		c.must(t, "createSession", params{"username": username, "password": adminPassword, "permanentSession": permanent}, &made)
		return made
	}
	s := staff{admin: logIn(p, "admin", false)}
	c := newClient(p, s.admin.AuthToken)
	defer c.close()
	c.must(t, "createAccount", params{"username": issuerName, "password": adminPassword, "roles": []string{"issuer"}}, nil)
	s.issuer, s.issuerKey = logIn(p, issuerName, false), logIn(p, issuerName, true)
	return s
}

// handles are those of the staff.
func (s staff) handles() []string {
	return []string{s.admin.SessionHandle, s.issuer.SessionHandle, s.issuerKey.SessionHandle}
}
