//go:build linux && bench

package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// child is a process on the server's core. It ends with the test, however that
// ends.
type child struct {
	cmd *exec.Cmd
	log string // file with what it writes to stderr
	url string // of its endpoint, for those that listen
}

// pinned prepares a command on one core.
func pinned(t *testing.T, core string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "taskset", append([]string{"-c", core}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// launch starts a command that was prepared.
func launch(t *testing.T, cmd *exec.Cmd) *child {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: %v (taskset and wrk are needed: make deps)", cmd.Args, err)
	}
	c := &child{cmd: cmd, log: log.Name()}
	t.Cleanup(c.kill)
	return c
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it may be gone already
	_ = c.cmd.Wait()
}

// stop lets a server end by itself.
func (c *child) stop(t *testing.T) {
	t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("the server ended with %v:\n%s", err, c.tail())
	}
}

func (c *child) tail() string {
	text, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4096):])
}

// cpu returns the processor time that the process has used so far.
func (c *child) cpu(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	// proc_pid_stat(5): utime and stime are fields 14 and 15, the name before the last parenthesis is 2.
	const ticks = 100 // USER_HZ, the same on every architecture that Go supports
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var sum int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return time.Duration(sum) * time.Second / ticks
}

// anonymous returns how much memory the process has that is no file's, in bytes.
func (c *child) anonymous(t *testing.T) int64 {
	t.Helper()
	n, err := c.memory()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (c *child) memory() (anonymous int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("the kernel does not tell RssAnon")
}

// builder starts the server that was built, on its cores.
type builder struct{ binary, config, cores string }

// build builds the server as make build does.
func build(t *testing.T) builder {
	t.Helper()
	b := builder{filepath.Join(t.TempDir(), "sessiond"), filepath.Join(t.TempDir(), "services.json"), serverCore}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", b.binary, root)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if err := os.WriteFile(b.config, []byte(servicesJSON), 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

const adminPassword = "correct horse battery staple"

// serve starts the server on a data folder and returns it with the time that it
// took to be ready.
func (b builder) serve(t *testing.T, dir string) (*child, time.Duration) {
	t.Helper()
	cmd := pinned(t, b.cores, b.binary, "serve", "--config", b.config, "--data", dir)
	cmd.Env = append(os.Environ(), "SESSIOND_ADMIN_PASSWORD="+adminPassword)
	begun := time.Now()
	c := launch(t, cmd)
	for deadline := begun.Add(5 * time.Minute); ; {
		if address := c.address(); address != "" {
			if response, err := http.Get("http://" + address + "/readyz"); err == nil { //nolint:noctx // loopback, and the server is killed in the end
				_ = response.Body.Close()
				if response.StatusCode == http.StatusOK {
					c.url = "http://" + address + "/api"
					return c, time.Since(begun)
				}
			}
		}
		if time.Now().After(deadline) || syscall.Kill(cmd.Process.Pid, 0) != nil {
			t.Fatalf("the server does not get ready:\n%s", c.tail())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// address returns where the server says that it listens.
func (c *child) address() string {
	log, err := os.Open(c.log)
	if err != nil {
		return ""
	}
	defer func() { _ = log.Close() }()
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var record struct{ Message, Address string }
		if json.Unmarshal(lines.Bytes(), &record) == nil && record.Message == "listening" {
			return record.Address
		}
	}
	return ""
}

// again runs this program in another role, on the server's core.
func again(t *testing.T, role string, args ...string) *exec.Cmd {
	t.Helper()
	return againOn(t, serverCore, role, args...)
}

func againOn(t *testing.T, core, role string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := pinned(t, core, append([]string{self}, args...)...)
	cmd.Env = append(os.Environ(), roleMark+"="+role)
	return cmd
}

// roleMark is the variable by which a child of this program learns its role.
const roleMark = "BENCH_ROLE"

// play is the main function of a child of this program.
func play(role string) int {
	var err error
	switch role {
	case "bare":
		err = bareServer(os.Args[1:])
	case "raw":
		err = rawStore(os.Args[1:])
	case "pace":
		err = pace(os.Args[1:])
	default:
		err = fmt.Errorf("no such role: %s", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
