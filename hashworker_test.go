//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// However a server ends, its hash worker does, and only then.
func TestTheHashWorkerEndsWithItsServer(t *testing.T) {
	const soon = 2500 * time.Millisecond // a process under the race detector takes a second to exit
	for how, end := range map[string]func(*testing.T, *process){
		"killed": func(_ *testing.T, p *process) { p.kill() },
		"asked to end": func(t *testing.T, p *process) {
			if code, _ := p.terminate(); code != 0 {
				t.Errorf("exit code %d:\n%s", code, p.output)
			}
		},
	} {
		t.Run(how, func(t *testing.T) {
			p := newHome(t, services(nil)).start(t)
			c := newClient(p, "")
			defer c.close()
			login := params{"username": "admin", "password": adminPassword}
			c.must(t, "createSession", login, nil)
			workers := childrenOf(t, p.cmd.Process.Pid)
			if len(workers) == 0 {
				t.Fatalf("there is none:\n%s", p.output)
			}
			for _, worker := range workers {
				commandLine, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", worker))
				if err != nil || !strings.HasSuffix(string(commandLine), "\x00hash-worker\x00") {
					t.Fatalf("%q is no hash worker: %v", commandLine, err)
				}
				if err := syscall.Kill(worker, syscall.SIGTERM); err != nil { // as to all of a service
					t.Fatal(err)
				}
			}
			c.must(t, "createSession", login, nil)
			if now := childrenOf(t, p.cmd.Process.Pid); !slices.Equal(now, workers) {
				t.Errorf("the workers were %v and are %v", workers, now)
			}

			end(t, p)
			awaitGone(t, workers, soon)
		})
	}
}

// awaitGone waits for processes to end, not for long.
func awaitGone(t *testing.T, pids []int, within time.Duration) {
	t.Helper()
	begun := time.Now()
	for len(running(t, pids)) > 0 {
		if time.Since(begun) > within {
			t.Fatalf("%v still run", running(t, pids))
		}
		pause(t, 5*time.Millisecond)
	}
	t.Logf("gone after %v", time.Since(begun))
}

// childrenOf returns the processes that another has started.
func childrenOf(t *testing.T, parent int) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		t.Fatalf("there are no processes: %v", err)
	}
	for _, path := range stats {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		if status := statusOf(pid); len(status) > 1 && status[1] == strconv.Itoa(parent) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// running returns those that have not ended, whether or not somebody has asked
// what became of the others.
func running(t *testing.T, pids []int) []int {
	t.Helper()
	return slices.DeleteFunc(slices.Clone(pids), func(pid int) bool {
		status := statusOf(pid)
		return status == nil || status[0] == "Z" || status[0] == "X"
	})
}

// statusOf returns what proc_pid_stat(5) tells of a process, from its state on;
// nil if it is gone.
func statusOf(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}
