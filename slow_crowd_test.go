//go:build linux && system

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A slowCrowd is many slow clients at once: those that drip headers, those that drip
// bodies, and, once all of these are there, those that ask for much and read no
// answer. They are a process of their own, which gets what processor time nobody else
// wants: it is the server that is measured, and not how they share its processors.
type slowCrowd struct {
	Address                 string
	Headers, Bodies, Silent int
}

func (c slowCrowd) all() int { return c.Headers + c.Bodies + c.Silent }

// crowdMark is the variable that makes of this binary the crowd that it describes.
const crowdMark = "SESSIOND_TEST_CROWD"

const (
	dripEvery = time.Second
	gathering = 40 * time.Second // at most, for who drips or who does not read
)

// crowdFate is what came of a crowd.
type crowdFate struct {
	Lasted  []time.Duration // from a client's connection until it was cut, in order
	Refused int             // those that got a small answer to their large question
	Faults  []string
}

// crowdProcess is a crowd that runs.
type crowdProcess struct {
	crowdFate

	cmd    *exec.Cmd
	output strings.Builder
	tell   io.WriteCloser
	heard  *json.Decoder
}

// come runs a crowd, and returns once all who drip are there. A calm machine has time
// for it in between; on one that never rests, it would not come at all.
func (c slowCrowd) come(t *testing.T, calm bool) *crowdProcess {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"nice", os.Args[0], "-test.run=^TestCrowdProcess$"}
	if calm {
		args = append([]string{"chrt", "--idle", "0"}, args[1:]...)
	}
	p := &crowdProcess{cmd: exec.CommandContext(t.Context(), args[0], args[1:]...)}
	p.cmd.Env = append(os.Environ(), crowdMark+"="+string(text))
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	heard, told, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = told.Close() }()
	t.Cleanup(func() { _ = heard.Close() })
	p.cmd.ExtraFiles, p.heard = []*os.File{told}, json.NewDecoder(heard)
	if p.tell, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.hear(t)
	return p
}

// goOn lets those come that do not read, and returns once they are there.
func (p *crowdProcess) goOn(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(p.tell, "\n"); err != nil {
		t.Fatal(err)
	}
	p.hear(t)
}

// end waits until all are gone.
func (p *crowdProcess) end(t *testing.T) {
	t.Helper()
	p.hear(t)
	if err := p.cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, p.output.String())
	}
	for _, fault := range p.Faults {
		t.Error(fault)
	}
}

func (p *crowdProcess) hear(t *testing.T) {
	t.Helper()
	if err := p.heard.Decode(&p.crowdFate); err != nil {
		t.Fatalf("the crowd: %v, %v\n%s", err, p.cmd.Wait(), p.output.String())
	}
}

// TestCrowdProcess is the crowd when another test runs this binary once more; see
// slowCrowd.come. On its own it does nothing.
func TestCrowdProcess(t *testing.T) {
	text := os.Getenv(crowdMark)
	if text == "" {
		return
	}
	var c slowCrowd
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	report := os.NewFile(3, "report")
	s := &siege{t: t, address: c.Address, coming: make(chan struct{}, 16)}
	tell := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		slices.Sort(s.fate.Lasted)
		if err := json.NewEncoder(report).Encode(s.fate); err != nil {
			t.Fatal(err)
		}
	}
	for n := range c.Headers + c.Bodies {
		s.come(n, n < c.Headers)
	}
	s.settle(c.Headers + c.Bodies)
	tell()
	if _, err := bufio.NewReader(os.Stdin).ReadByte(); err != nil {
		t.Fatal(err)
	}
	for n := range c.Silent {
		s.comeSilent(c.Headers + c.Bodies + n)
	}
	s.settle(c.all())
	tell()
	s.group.Wait()
	tell()
}

// A siege is what the clients of a crowd share.
type siege struct {
	t       *testing.T
	address string
	group   sync.WaitGroup
	coming  chan struct{} // few at a time, so that none is refused
	there   atomic.Int64  // have come, though some may be gone again

	mu   sync.Mutex
	fate crowdFate
}

// settle waits until so many clients have come.
func (s *siege) settle(all int) {
	for begun := time.Now(); s.there.Load() < int64(all); pause(s.t, 10*time.Millisecond) {
		if time.Since(begun) > gathering {
			s.t.Fatalf("%d of %d clients have come", s.there.Load(), all)
		}
	}
}

const slowHead = "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

// come is a client that drips a header, or a body, one byte after the other until
// it is cut.
func (s *siege) come(n int, header bool) {
	first := slowHead + "X: "
	if !header {
		first = slowHead + "Content-Length: 1000\r\n\r\n{"
	}
	s.client(n, 64<<10, func(nc net.Conn) (bool, error) {
		_, err := io.WriteString(nc, first)
		return true, err
	}, func(nc net.Conn) {
		buffer := make([]byte, 512)
		for answered := false; ; {
			_ = nc.SetReadDeadline(time.Now().Add(dripEvery)) // what else is wrong, Read tells
			_, err := nc.Read(buffer)
			switch {
			case err == nil:
				answered = true
			case !errors.Is(err, os.ErrDeadlineExceeded):
				return
			case !answered:
				if _, err := nc.Write([]byte("x")); err != nil {
					return
				}
			}
		}
	})
}

// comeSilent is a client that asks for much and reads no more than the beginning. That
// it is cut it learns by writing. One that is refused goes.
func (s *siege) comeSilent(n int) {
	const much = `[{"action":"listActions"},{"action":"listActions"}]` // more than the kernel takes in
	s.client(n, 4<<10, func(nc net.Conn) (bool, error) {
		if _, err := fmt.Fprintf(nc, "%sContent-Length: %d\r\n\r\n%s", slowHead, len(much), much); err != nil {
			return false, err
		}
		answer, err := http.ReadResponse(bufio.NewReaderSize(nc, 1<<10), nil)
		if err != nil {
			return false, err
		}
		return answer.ContentLength > 16<<10, nil //nolint:bodyclose // it is not read, which is the point
	}, func(nc net.Conn) {
		for {
			pause(s.t, dripEvery/4)
			if _, err := nc.Write([]byte("P")); err != nil {
				return
			}
		}
	})
}

// client connects, comes to the point at which it is slow, unless it is refused, and
// stays there until it is cut.
func (s *siege) client(n, room int, come func(net.Conn) (bool, error), stay func(net.Conn)) {
	s.group.Go(func() {
		dialer := net.Dialer{
			LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 3, byte(n/250), byte(n%250+1))},
			Control: func(_, _ string, c syscall.RawConn) error {
				return c.Control(func(fd uintptr) {
					_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, room) // a hint
				})
			},
		}
		s.coming <- struct{}{}
		nc, err := dialer.DialContext(s.t.Context(), "tcp", s.address)
		served := false
		if err == nil {
			defer func() { _ = nc.Close() }()
			served, err = come(nc)
		}
		<-s.coming
		begun := time.Now()
		s.there.Add(1)
		if served && err == nil {
			stay(nc)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case err != nil:
			s.fate.Faults = append(s.fate.Faults, err.Error())
		case served:
			s.fate.Lasted = append(s.fate.Lasted, time.Since(begun).Round(time.Millisecond))
		default:
			s.fate.Refused++
		}
	})
}
