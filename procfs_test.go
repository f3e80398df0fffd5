//go:build linux && system

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// What the kernel says of a server.

// status returns a member of /proc/PID/status: Threads, or kibibytes of memory.
func (p *process) status(t *testing.T, member string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n"+member+":")
	fields := strings.Fields(rest)
	if !found || len(fields) == 0 {
		t.Fatalf("the kernel does not tell %s", member)
	}
	n, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// anonymous returns the memory in KiB that is no file's.
func (p *process) anonymous(t *testing.T) int64 {
	t.Helper()
	return p.status(t, "RssAnon")
}

// descriptors counts the open files, sockets among them.
func (p *process) descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "fd"))
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}
