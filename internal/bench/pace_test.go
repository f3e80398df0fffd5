//go:build linux && bench

package bench

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A pacer is a process of its own that sends requests at a fixed rate, whatever
// becomes of those before: how long one took is counted from the moment at which it
// was to be sent, so that a server that stands still is seen by all that it lets
// wait.
type pacer struct {
	*child
	in  io.Writer
	out *bufio.Reader
}

// startPacer starts one that is to send these bodies in turn, all of which have to
// be answered with success. Where an answer holds a token and end is not empty, end
// is sent after it, with the token in the place of its %s, and timed apart.
func startPacer(t *testing.T, server *child, bodies []string, end string, perSecond int) *pacer {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bodies")
	if err := os.WriteFile(file, []byte(strings.Join(bodies, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := againOn(t, loadCore, "pace", server.url, file, end, strconv.Itoa(perSecond))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &pacer{launch(t, cmd), in, bufio.NewReader(out)}
	p.say(t, "run") // the first requests find cold caches and no connections
	time.Sleep(time.Second)
	p.say(t, "stop")
	p.hear(t)
	return p
}

// paced is what a pacer has measured.
type paced struct {
	answers, ends times
}

// times sums up how long requests took.
type times struct {
	n             int
	p50, p99, max time.Duration
}

func (p *pacer) say(t *testing.T, what string) {
	t.Helper()
	if _, err := fmt.Fprintln(p.in, what); err != nil {
		t.Fatal(err)
	}
}

func (p *pacer) hear(t *testing.T) (r paced) {
	t.Helper()
	for _, s := range []*times{&r.answers, &r.ends} {
		if _, err := fmt.Fscanln(p.out, &s.n, &s.p50, &s.p99, &s.max); err != nil {
			t.Fatalf("the load: %v\n%s", err, p.tail())
		}
	}
	return r
}

// pace is the main function of a pacer.
func pace(args []string) error {
	url, end := args[0], args[2]
	text, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	bodies := strings.Split(string(text), "\n")
	perSecond, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	s := sender{url: url, end: end, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}}}
	next := 0
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		done := make(chan struct{})
		go func() {
			lines.Scan()
			close(done)
		}()
		s.answers, s.ends, s.failed = nil, nil, nil
		next = s.run(bodies, next, perSecond, done)
		if s.failed != nil {
			return s.failed
		}
		for _, took := range [][]time.Duration{s.answers, s.ends} {
			slices.Sort(took)
			sum := times{n: len(took)}
			if len(took) > 0 {
				sum.p50, sum.p99, sum.max = part(took, 0.5), part(took, 0.99), took[len(took)-1]
			}
			if _, err := fmt.Fprintln(os.Stdout, sum.n, int64(sum.p50), int64(sum.p99), int64(sum.max)); err != nil {
				return err
			}
		}
	}
	return nil
}

type sender struct {
	url, end string
	client   *http.Client

	mu            sync.Mutex
	answers, ends []time.Duration
	failed        error
}

// run sends until done and returns which body would be the next.
func (s *sender) run(bodies []string, next, perSecond int, done <-chan struct{}) int {
	var group sync.WaitGroup
	defer group.Wait()
	begun := time.Now()
	for i := 0; ; i++ {
		moment := begun.Add(time.Duration(i) * time.Second / time.Duration(perSecond))
		time.Sleep(time.Until(moment))
		select {
		case <-done:
			return next
		default:
		}
		body := bodies[next%len(bodies)]
		next++
		group.Go(func() {
			text, err := s.send(body)
			answered, ended := time.Since(moment), time.Duration(0)
			if err == nil && s.end != "" {
				if _, token, ok := strings.Cut(text, `"authToken":"`); ok {
					token, _, _ = strings.Cut(token, `"`)
					begun := time.Now()
					_, err = s.send(fmt.Sprintf(s.end, token))
					ended = time.Since(begun)
				}
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.failed = errors.Join(s.failed, err)
			if s.answers = append(s.answers, answered); ended != 0 {
				s.ends = append(s.ends, ended)
			}
		})
	}
}

func (s *sender) send(body string) (string, error) {
	response, err := s.client.Post(s.url, "application/json", strings.NewReader(body)) //nolint:noctx // loopback, and the server is killed in the end
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err == nil && (!strings.Contains(string(text), `"errorCode":0,`) || strings.Contains(string(text), `"valid":false`)) {
		err = fmt.Errorf("answered with %s", text)
	}
	return string(text), err
}

// part returns the time that such a part of the requests needed at most.
func part(sorted []time.Duration, of float64) time.Duration {
	return sorted[int(of*float64(len(sorted)-1))]
}
