//go:build linux && system

package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sessiond/internal/campaign"
	"sessiond/internal/cli"
)

// The same as the nth call of a failing disk, by other means: the program as it is
// released, on an ordinary file system, one of whose calls the kernel never sees, as
// strace answers it with an error.
func TestSystemCampaignStrace(t *testing.T) {
	const most = 20
	program := built(t, "CGO_ENABLED=0", "-trimpath")
	campaign.Run(t, campaign.Plan{
		Name: "a call fails under strace", Trials: 40, Few: 2, Must: slices.Concat(cycleMust(), []string{falselyAcked, hangs}),
		About: fmt.Sprintf("the program as it is released under 16 clients, while strace answers up to the %dth write or sync of the data by one of its threads with EIO or ENOSPC; kill -9, start", most),
	}, func(r *campaign.Trial) {
		call := []string{"pwrite64", "fdatasync"}[r.N%2]
		errno := []string{"EIO", "ENOSPC"}[r.N/2%2]
		nth := 1 + rand.N(most)
		t := r.T
		h := newHome(t, roomy())
		h.program = program
		p := opened(r, t, h)
		l := newLedger(hire(t, p))
		l.faulty = true
		l.enlist(t, p)

		s := attachStrace(t, p, filepath.Join(h.data, cli.DataFile), call, errno, nth)
		l.loadUntil(t, p, func() {
			select {
			case <-s.met:
				r.Count("faults", 1)
				pause(t, afterFault)
			case <-time.After(faultWithin):
				r.Count(notMet, 1)
			}
		}, p.kill)
		s.wait(t)
		if time.Duration(l.slowest.Load()) > hang {
			r.Count(hangs, 1)
		}
		p = opened(r, t, h)
		l.check(t, p)
		l.load(t, p, againForLoad, p.kill)
		whole(r, h)
		for figure, count := range l.figures {
			r.Count(figure, count)
		}
		r.Count("acknowledged changes", l.creates+l.ends+l.changes)
		r.Count("answers that something was not written", int(l.refusals.Load()))
		if t.Failed() {
			t.Fatalf("the failing call was the %dth %s: %s", nth, call, errno)
		}
	})
}

// strace is one that watches a server, and ends with it.
type strace struct {
	cmd   *exec.Cmd
	met   chan struct{} // closed once a call was answered with an error
	ended chan struct{}
	said  strings.Builder // to be read once it has ended
}

// attachStrace lets the nth call of each of a server's threads on a file fail.
func attachStrace(t *testing.T, p *process, file, call, errno string, nth int) *strace {
	t.Helper()
	s := &strace{met: make(chan struct{}), ended: make(chan struct{})}
	s.cmd = exec.CommandContext(t.Context(), "strace", "-f", "-p", strconv.Itoa(p.cmd.Process.Pid), "-P", file,
		"-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:error=%s:when=%d", call, errno, nth))
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	attached := make(chan struct{})
	go func() {
		defer close(s.ended)
		threads, faults := 0, 0
		for lines := bufio.NewScanner(out); lines.Scan(); {
			line := lines.Text()
			s.said.WriteString(line + "\n")
			if strings.HasSuffix(line, "attached") || strings.Contains(line, " attached with ") {
				if threads++; threads == 1 {
					close(attached)
				}
			}
			if strings.Contains(line, "(INJECTED)") {
				if faults++; faults == 1 {
					close(s.met)
				}
			}
		}
	}()
	select {
	case <-attached:
	case <-s.ended:
		t.Fatalf("strace: %v\n%s", s.cmd.Wait(), s.said.String())
	}
	return s
}

// wait returns once a server that was killed has taken its strace with it.
func (s *strace) wait(t *testing.T) {
	t.Helper()
	<-s.ended
	if err := s.cmd.Wait(); err != nil {
		t.Fatalf("strace: %v\n%s", err, s.said.String())
	}
}
