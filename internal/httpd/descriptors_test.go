//go:build unix

package httpd_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"sessiond/internal/config"
	"sessiond/internal/httpd"
	"sessiond/internal/logging"
)

const childVariable = "HTTPD_TEST_CHILD"

// A server that has a handful of file descriptors left outlives 200 clients that
// stay connected, and serves when they have gone.
func TestRunningOutOfDescriptors(t *testing.T) {
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), childVariable+"=1")
	log := &buffer{}
	child.Stderr = log
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err, log.String())
	}
	address = strings.TrimSpace(address)

	var crowd []net.Conn
	for range 200 {
		nc, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		crowd = append(crowd, nc)
	}
	deadline := time.Now().Add(10 * time.Second)
	for !strings.Contains(log.String(), "accepting connections is paused") {
		if time.Now().After(deadline) {
			t.Fatalf("it has not run out; the log says %s", log.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, nc := range crowd {
		_ = nc.Close()
	}
	var status int
	for status != http.StatusOK && time.Now().Before(deadline.Add(10*time.Second)) {
		status = ask(address)
	}
	if status != http.StatusOK {
		t.Errorf("afterwards it answers %d", status)
	}
	_ = stdin.Close() // tells the child to go
	if err := child.Wait(); err != nil {
		t.Errorf("the server ended with %v; the log says %s", err, log.String())
	}
	if got := log.String(); !strings.Contains(got, "accepting connections again") {
		t.Errorf("the log says %s", got)
	}
}

func ask(address string) int {
	nc, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return 0
	}
	defer func() { _ = nc.Close() }()
	if err := nc.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return 0
	}
	if _, err := nc.Write([]byte("POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")); err != nil {
		return 0
	}
	response, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		return 0
	}
	_ = response.Body.Close()
	return response.StatusCode
}

// runAsChild is the server of TestRunningOutOfDescriptors.
func runAsChild() bool {
	if os.Getenv(childVariable) == "" {
		return false
	}
	if err := serveWithFewDescriptors(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

func serveWithFewDescriptors() error {
	const limit, left = 128, 8
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	cfg := configuration()
	s := httpd.New(httpd.Options{Holder: config.NewHolder(cfg), Log: logging.New(os.Stderr, "info", logging.JSON, time.Now)}, &echo{})
	if err := s.Listen(context.Background(), cfg.Listeners); err != nil {
		return err
	}
	var hoard []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if errors.Is(err, syscall.EMFILE) {
			break
		} else if err != nil {
			return err
		}
		hoard = append(hoard, f)
	}
	for _, f := range hoard[:left] {
		_ = f.Close()
	}
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1)) // until the test closes it
		if err := s.Shutdown(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	fmt.Println(s.Addrs()[0])
	err := s.Serve()
	for _, f := range hoard[left:] {
		_ = f.Close()
	}
	return err
}
