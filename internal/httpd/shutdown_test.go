package httpd_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/config"
	"sessiond/internal/httpd"
)

// While requests pour in on kept and on new connections, Shutdown is called.
// Every call of the Handler reaches its client as an answer.
func TestDrainLeavesNoHandledRequestUnanswered(t *testing.T) {
	for range 5 {
		h := &crowd{enough: make(chan struct{})}
		cfg := configuration()
		s := httpd.New(httpd.Options{Holder: config.NewHolder(cfg)}, h)
		if err := s.Listen(t.Context(), cfg.Listeners); err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- s.Serve() }()

		var answered atomic.Int64
		var clients sync.WaitGroup
		for i := range 16 {
			clients.Go(func() {
				for client(t, s.Addrs()[0].String(), i%2 == 0, &answered) {
				}
			})
		}
		<-h.enough
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		clients.Wait()
		if a, n := answered.Load(), h.handled.Load(); a != n {
			t.Errorf("%d handled, %d answered", n, a)
		}
	}
}

// crowd is an echo that says when 500 requests have come.
type crowd struct {
	echo

	once   sync.Once
	enough chan struct{}
}

func (c *crowd) Serve(ctx context.Context, r *api.Request, dst []byte) api.Answer {
	answer := c.echo.Serve(ctx, r, dst)
	if c.handled.Load() >= 500 {
		c.once.Do(func() { close(c.enough) })
	}
	return answer
}

// client sends requests on one connection, two at a time if asked to pipeline,
// until it ends, and reports whether the server could be reached.
func client(t *testing.T, address string, pipeline bool, answered *atomic.Int64) bool {
	nc, err := net.Dial("tcp", address) //nolint:noctx // bounded by the deadline below
	if err != nil {
		return false
	}
	defer func() { _ = nc.Close() }()
	if err := nc.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Error(err)
	}
	wire, n := "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", 1
	if pipeline {
		wire, n = wire+wire, 2
	}
	r := bufio.NewReader(nc)
	for {
		if _, err := io.WriteString(nc, wire); err != nil {
			return true
		}
		for range n {
			response, err := http.ReadResponse(r, &http.Request{Method: "POST"})
			if err != nil {
				return true
			}
			if _, err := io.Copy(io.Discard, response.Body); err != nil {
				return true
			}
			if response.StatusCode == http.StatusOK {
				answered.Add(1)
			}
		}
	}
}

// What runs is finished and answered; meanwhile the server says that it is
// leaving, and connections without a request end.
func TestDrainWaitsForWhatRuns(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	s := httpd.New(httpd.Options{Holder: config.NewHolder(configuration())}, handlerFunc(func(ctx context.Context, _ *api.Request, dst []byte) api.Answer {
		close(begun)
		<-finish
		if ctx.Err() != nil {
			t.Error("the context has ended too early")
		}
		return api.Answer{Body: append(dst, `{"errorCode":0}`...)}
	}))
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.Listen(ctx, configuration().Listeners); err != nil {
		t.Fatal(err)
	}
	cancel() // such as a signal's; what runs goes on
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()

	resting := dial(t, s)
	restingReader := bufio.NewReader(resting)
	send(t, resting, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
	receive(t, restingReader, "GET")
	working := dial(t, s)
	send(t, working, "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
	<-begun
	half := dial(t, s)
	send(t, half, "GET /readyz HTTP/1.1\r\nHost: local")

	shut := make(chan error, 1)
	go func() { shut <- s.Shutdown(t.Context()) }()
	if _, err := restingReader.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the resting connection: %v, want its end", err)
	}
	send(t, half, "host\r\n\r\n")
	if got := receive(t, bufio.NewReader(half), "GET"); got.status != 503 || got.code(t) != api.ShuttingDown || got.header.Get("Connection") != "close" {
		t.Errorf("/readyz answers %d, Connection %q, %s", got.status, got.header.Get("Connection"), got.body)
	}
	if _, err := net.DialTimeout("tcp", s.Addrs()[0].String(), time.Second); err == nil {
		t.Error("a connection is accepted while draining")
	}
	select {
	case err := <-shut:
		t.Fatalf("Shutdown returned %v while a request runs", err)
	default:
	}
	close(finish)
	if got := receive(t, bufio.NewReader(working), "POST"); got.status != 200 {
		t.Errorf("the running request is answered %d %s", got.status, got.body)
	}
	_ = working.Close()
	_ = half.Close()
	if err := <-shut; err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("a second Shutdown: %v", err)
	}
}

func TestDrainCutsWhatDoesNotEnd(t *testing.T) {
	begun := make(chan struct{})
	s := httpd.New(httpd.Options{Holder: config.NewHolder(configuration())}, handlerFunc(func(ctx context.Context, _ *api.Request, dst []byte) api.Answer {
		close(begun)
		<-ctx.Done()
		return api.Answer{Body: dst}
	}))
	if err := s.Listen(t.Context(), configuration().Listeners); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	send(t, dial(t, s), "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); err == nil || !strings.Contains(err.Error(), "1 connections") {
		t.Errorf("Shutdown returned %v", err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
