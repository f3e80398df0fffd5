//go:build linux && system

package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// What a flood of log-ins must leave as it was. Strangers at many addresses ask
// for ten times as many password checks as the workers can do, with real hashes;
// most of the names do not exist, so that no counter of failures turns them away
// and the queue of the workers is full. Meanwhile
//
//   - a gateway validates sessions, and hardly notices,
//   - those who have logged in before from where they are get in,
//   - everybody else is told at once to come back later, and when.
//
// Quiet and flood take turns in one run, so that whatever else the machine does
// meets both.
func TestSystemFlood(t *testing.T) {
	const (
		pairs      = 5
		turn       = 4 * time.Second
		overload   = 20  // times what the workers can do; strangers that wait ask no more, so that about half remains
		strangers  = 200 // each with an address and a connection
		gateways   = 16  // connections of the gateway
		validates  = 600 // a second, all gateways together
		known      = 5   // who have logged in before
		everyKnown = 300 * time.Millisecond
	)
	config := services(nil)
	config["maxConnectionsPerIpAddress"] = 1000
	p := loggedServer(t, config)
	staff := hire(t, p)
	admin := newClient(p, staff.admin.AuthToken)
	defer admin.close()

	names := make([]string, known)
	for n := range names {
		names[n] = fmt.Sprint("known-", n)
		admin.must(t, "createAccount", params{"username": names[n], "password": adminPassword}, nil)
	}
	for n := range victims {
		admin.must(t, "createAccount", params{"username": fmt.Sprint("victim-", n), "password": adminPassword}, nil)
	}
	var key credential
	admin.must(t, "createAccount", params{"username": "gateway", "password": adminPassword, "roles": []string{"gateway"}}, nil)
	newClient(p, "").must(t, "createSession", params{"username": "gateway", "password": adminPassword, "permanentSession": true}, &key)

	f := &flood{t: t, address: strings.TrimPrefix(p.url, "http://")}
	each := f.meet(names)
	rate := overload * float64(max(1, runtime.NumCPU()-1)) / each.Seconds() // as many workers as the server has

	var quiet, flooded []*sample
	for range pairs {
		during := func(watch func(context.Context)) *sample {
			ctx, cancel := context.WithTimeout(t.Context(), turn)
			defer cancel()
			s := &sample{}
			var group sync.WaitGroup
			for n := range gateways {
				group.Go(func() {
					f.validate(ctx, s, n, time.Second*gateways/validates, validateRequest(key.AuthToken, staff.issuer.AuthToken))
				})
			}
			watch(ctx)
			group.Wait()
			return s
		}
		quiet = append(quiet, during(func(context.Context) {}))
		flooded = append(flooded, during(func(ctx context.Context) {
			defer f.since(time.Now())
			var group sync.WaitGroup
			for n := range strangers {
				group.Go(func() { f.strange(ctx, n, time.Duration(strangers/rate*float64(time.Second))) })
			}
			for n, name := range names {
				group.Go(func() { f.known(ctx, n, name, everyKnown) })
			}
			group.Wait()
		}))
	}
	f.report(p, quiet, flooded, pairs*turn)
}

const (
	loginFailed    = 21101
	loginThrottled = 21102
	victims        = 40 // accounts at whose passwords the strangers guess
	patience       = 5 * time.Second
	wanted         = 10 // log-ins of strangers for each that is checked
)

// loggedServer is a server with the hashes of every day, which logs to a file:
// reading its log would cost the test's clients their time.
func loggedServer(t *testing.T, config map[string]any) *process {
	t.Helper()
	h := newHome(t, config)
	path := filepath.Join(t.TempDir(), "log")
	log, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(os.Args[0], "-test.run=^TestMainProcess$", "--", "serve", "--config", h.config, "--data", h.data) //nolint:noctx // it is killed in the end
	cmd.Env = append(os.Environ(), childMark+"=1", "SESSIOND_ADMIN_PASSWORD="+adminPassword)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, log: path, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(p.kill)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); pause(t, 10*time.Millisecond) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			var record struct{ Message, Address string }
			if json.Unmarshal([]byte(line), &record) == nil && record.Message == "listening" {
				p.url = "http://" + record.Address
				return p
			}
		}
	}
	t.Fatal("the server does not listen")
	return nil
}

// flood is everybody who speaks to the server, and what came of it.
type flood struct {
	t       *testing.T
	address string

	failed, overloaded, throttled atomic.Int64 // answers to strangers
	invented                      atomic.Int64 // names so far

	mu       sync.Mutex
	refused  []time.Duration // how long a refusal without a check took
	tried    int             // log-ins of those who are known
	got      []time.Duration // how long those took that succeeded
	again    int             // how often they were told to come back
	unserved int             // who were not let in within patience
	lasted   time.Duration   // all floods together, until the last answer
}

func (f *flood) since(begun time.Time) { f.lasted += time.Since(begun) }

// sample is what a gateway saw during one turn.
type sample struct {
	mu     sync.Mutex
	took   []time.Duration
	failed int
}

// meet logs those who are known in for the first time, each from his address,
// and returns how long a log-in takes when nothing else happens.
func (f *flood) meet(names []string) time.Duration {
	f.t.Helper()
	var took []time.Duration
	for n, name := range names {
		c := f.connect(knownAddress(n))
		for range 3 {
			a, err := c.send(loginRequest(name, adminPassword))
			if err != nil || a.Code != 0 {
				f.t.Fatalf("the log-in of %s: %+v, %v", name, a, err)
			}
			took = append(took, a.took)
		}
		c.close()
	}
	return quantile(took, 0.5)
}

// validate is one connection of a gateway.
func (f *flood) validate(ctx context.Context, s *sample, n int, every time.Duration, request []byte) {
	c := f.connect(net.IPv4(127, 0, 0, 1))
	defer c.close()
	var took []time.Duration
	failed := 0
	f.paced(ctx, n, every, func() {
		a, err := c.send(request)
		if err != nil || a.Code != 0 || !a.Result.Valid {
			failed++
			f.t.Errorf("validate: %+v, %v", a, err)
			return
		}
		took = append(took, a.took)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took = append(s.took, took...)
	s.failed += failed
}

// strange guesses from an address of its own: two of three times at a name that
// does not exist and was never tried before.
func (f *flood) strange(ctx context.Context, n int, every time.Duration) {
	c := f.connect(net.IPv4(127, 1, byte(n/100), byte(n%100+1)))
	defer c.close()
	f.paced(ctx, n, every, func() {
		name := fmt.Sprint("victim-", n%victims)
		if i := f.invented.Add(1); i%3 != 0 {
			name = fmt.Sprint("invented-", i)
		}
		a, err := c.send(loginRequest(name, "not the right battery"))
		switch {
		case err != nil:
			f.t.Errorf("a stranger: %v", err)
		case a.Code == loginFailed:
			f.failed.Add(1)
		case a.Code == overloaded || a.Code == loginThrottled:
			f.turnedAway(a)
		default:
			f.t.Errorf("a stranger gets %d", a.Code)
		}
	})
}

// turnedAway counts a refusal that cost no check.
func (f *flood) turnedAway(a answer) {
	if a.Data.RetryAfterSeconds < 1 || a.Code == overloaded && a.retryAfter == "" {
		f.t.Errorf("refused with %d, but not told when to come back", a.Code)
	}
	if a.Code == overloaded {
		f.overloaded.Add(1)
	} else {
		f.throttled.Add(1)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused = append(f.refused, a.took)
}

// known logs in again and again from where it did before, and comes back when it
// is told to.
func (f *flood) known(ctx context.Context, n int, name string, every time.Duration) {
	c := f.connect(knownAddress(n))
	defer c.close()
	f.paced(ctx, n, every, func() {
		begun := time.Now()
		back := 0
		for {
			a, err := c.send(loginRequest(name, adminPassword))
			if err != nil {
				f.t.Errorf("%s: %v", name, err)
				return
			}
			wait := time.Duration(a.Data.RetryAfterSeconds) * time.Second
			if took := time.Since(begun); a.Code == 0 || wait == 0 || took+wait > patience {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.tried++
				f.again += back
				if a.Code == 0 && took <= patience {
					f.got = append(f.got, took)
				} else {
					f.unserved++
				}
				return
			}
			back++
			pause(f.t, wait)
		}
	})
}

// paced does something at a steady pace until the context ends; the nth of many
// begins later than the others, so that they do not come at one moment.
func (f *flood) paced(ctx context.Context, n int, every time.Duration, do func()) {
	select {
	case <-time.After(every * time.Duration(n%20) / 20):
	case <-ctx.Done():
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			do()
		}
	}
}

// report prints what was measured beside what is wanted, and fails where that is
// missed.
func (f *flood) report(p *process, quiet, flooded []*sample, d time.Duration) {
	t := f.t
	t.Helper()
	middle := func(samples []*sample, q float64) time.Duration {
		var each []time.Duration
		for i := range samples {
			each = append(each, quantile(samples[i].took, q))
		}
		return quantile(each, 0.5)
	}
	failed := 0
	for i := range quiet {
		failed += quiet[i].failed + flooded[i].failed
		t.Logf("pair %d: validate p50 %v quiet, %v in the flood; p99 %v and %v; %d and %d requests", i+1,
			quantile(quiet[i].took, 0.5), quantile(flooded[i].took, 0.5), quantile(quiet[i].took, 0.99), quantile(flooded[i].took, 0.99),
			len(quiet[i].took), len(flooded[i].took))
	}
	base50, base99 := middle(quiet, 0.5), middle(quiet, 0.99)
	bar(t, "validate-p50", middle(flooded, 0.5), base50*3/2)
	bar(t, "validate-p99", middle(flooded, 0.99), max(2*base99, base99+10*time.Millisecond))
	bar(t, "validate-failed", failed, 0)
	bar(t, "known-refused-permille", 1000*f.unserved/max(1, f.tried), 10)
	bar(t, "refusal-p99", quantile(f.refused, 0.99), 50*time.Millisecond)

	attempts := f.failed.Load() + f.overloaded.Load() + f.throttled.Load()
	asked, checked := float64(attempts)/d.Seconds(), float64(f.failed.Load()+int64(len(f.got)))/f.lasted.Seconds()
	t.Logf("quiet: validate p50 %v, p99 %v", base50, base99)
	t.Logf("flood: %.0f log-ins a second by strangers, %.1f checks a second; of %d, %d were checked, %d found the queue full, %d were throttled",
		asked, checked, attempts, f.failed.Load(), f.overloaded.Load(), f.throttled.Load())
	t.Logf("%d of %d log-ins of the known, p50 %v, p99 %v, told to come back %d times",
		len(f.got), f.tried, quantile(f.got, 0.5), quantile(f.got, 0.99), f.again)
	for _, worker := range childrenOf(t, p.cmd.Process.Pid) {
		t.Logf("peak memory: server %s, hash worker %s", peakMemory(t, p.cmd.Process.Pid), peakMemory(t, worker))
	}
	if f.overloaded.Load() == 0 || len(f.got) == 0 || asked < wanted*checked {
		t.Errorf("this was no flood of %d times what is checked, and shows nothing", wanted)
	}
}

// bar prints one figure, which is to be at most so much.
func bar[N cmp.Ordered](t *testing.T, name string, value, most N) {
	t.Helper()
	t.Logf("BAR %s %v %v", name, value, most)
	if value > most {
		t.Errorf("%s is %v, want at most %v", name, value, most)
	}
}

func quantile(list []time.Duration, q float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[int(q*float64(len(sorted)-1))].Round(time.Microsecond)
}

// connection is one connection from an address of its own, without what an HTTP
// client does besides: the test shares the processors with the server.
type connection struct {
	net.Conn
	read *bufio.Reader
}

// answer is what came back, and after how long.
type answer struct {
	Code   int                             `json:"errorCode"`
	Data   struct{ RetryAfterSeconds int } `json:"errorData"`
	Result struct{ Valid bool }

	took       time.Duration
	retryAfter string
}

func (f *flood) connect(from net.IP) *connection {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
	c, err := dialer.DialContext(context.Background(), "tcp", f.address)
	if err != nil {
		f.t.Error(err)
		c, _ = net.Pipe() // fails on use
		_ = c.Close()
	}
	return &connection{c, bufio.NewReader(c)}
}

func (c *connection) close() { _ = c.Close() }

// send sends a request and waits for the answer.
func (c *connection) send(request []byte) (a answer, err error) {
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return a, err
	}
	begun := time.Now()
	if _, err := c.Write(request); err != nil {
		return a, err
	}
	response, err := http.ReadResponse(c.read, nil)
	if err != nil {
		return a, err
	}
	a.took = time.Since(begun)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return a, err
	}
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusServiceUnavailable {
		return a, errors.New(response.Status)
	}
	a.retryAfter = response.Header.Get("Retry-After")
	return a, json.Unmarshal(body, &a)
}

func loginRequest(username, password string) []byte {
	return request(fmt.Sprintf(`{"action":"createSession","params":{"username":%q,"password":%q}}`, username, password))
}

func validateRequest(key, token string) []byte {
	return request(fmt.Sprintf(`{"action":"validate","params":{"tokenId":%q},"authToken":%q}`, token, key))
}

func request(body string) []byte {
	return fmt.Appendf(nil, "POST /api HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func knownAddress(n int) net.IP { return net.IPv4(127, 2, 0, byte(n+1)) }

// peakMemory is what the kernel says of a process.
func peakMemory(t *testing.T, pid int) string {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}
