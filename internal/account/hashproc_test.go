//go:build linux

package account

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sessiond/internal/api"
	"sessiond/internal/clock"
)

// The tests' children are this binary, run once more; see TestMain.

func TestHashesOfAChildAreThoseOfTheServer(t *testing.T) {
	right, wrong := api.NewSecret("correct horse \xff battery"), api.NewSecret("correct horse \ufffd battery")
	here, there := cheapHasher(t), newFamily(t, "hash-worker", cheap)
	for _, tt := range []struct {
		why           string
		makes, checks *Hasher
	}{
		{"made there, checked here", there.Hasher, here},
		{"made here, checked there", here, there.Hasher},
		{"made and checked there", there.Hasher, there.Hasher},
	} {
		phc, err := tt.makes.Hash(t.Context(), Lane{}, right)
		if err != nil {
			t.Fatalf("%s: %v", tt.why, err)
		}
		for password, want := range map[api.Secret]bool{right: true, wrong: false, {}: false} {
			if got, err := tt.checks.Verify(t.Context(), Lane{}, password, phc); err != nil || got != want {
				t.Errorf("%s: %t, %v; want %t", tt.why, got, err, want)
			}
		}
		if got, err := tt.checks.Verify(t.Context(), Lane{}, right, api.Secret{}); err != nil || got {
			t.Errorf("%s, without a hash: %t, %v", tt.why, got, err)
		}
	}
	longest := api.NewSecret(strings.Repeat("\x00", MaxPassword))
	if phc, err := there.Hash(t.Context(), Lane{}, longest); err != nil || !there.verifies(longest, phc) {
		t.Errorf("the longest password: %v", err)
	}
	there.wants(t, 0)
	there.child() // all of it was the work of one
}

func TestWhatAChildIsGiven(t *testing.T) {
	f := newFamily(t, "hash-worker", cheap)
	if len(childrenOfThis(t)) != 0 {
		t.Error("a child before there is work")
	}
	f.hashes(t)
	child := f.child()
	if got := read(t, child, "environ"); got != "GOMAXPROCS=1\x00" {
		t.Errorf("its environment is %q", got)
	}
	if got := read(t, child, "cmdline"); got != os.Args[0]+"\x00hash-worker\x00" {
		t.Errorf("its command line is %q", got)
	}
	if limits := strings.Join(strings.Fields(read(t, child, "limits")), " "); !strings.Contains(limits, "Max core file size 0 0 ") {
		t.Errorf("it may leave a core: %s", limits)
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", child))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("it has no threads: %v", err)
	}
	for _, task := range tasks {
		stat := statOf(t, filepath.Join(task, "stat"))
		if stat[nicenessField] != "15" || stat[groupField] != strconv.Itoa(child) {
			t.Errorf("a thread has niceness %s in group %s, want 15 in %d", stat[nicenessField], stat[groupField], child)
		}
	}
	if own := statOf(t, "/proc/self/stat"); own[nicenessField] == "15" {
		t.Error("the server itself has stepped back")
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", child))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", child, file.Name()))
		if strings.HasPrefix(target, "socket:") || filepath.IsAbs(target) && target != os.DevNull && !strings.HasPrefix(target, "/sys/fs/cgroup/") {
			t.Errorf("it holds %s", target)
		}
	}
}

func TestAChildOutlivesTheSignalsThatEndAServer(t *testing.T) {
	f := newFamily(t, "hash-worker", cheap)
	f.hashes(t)
	child := f.child()
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if err := syscall.Kill(child, signal); err != nil {
			t.Fatal(err)
		}
		f.hashes(t)
	}
	f.wants(t, 0)
	if f.child() != child {
		t.Error("there is another one")
	}
}

// A child that is killed in the middle of a hash costs nobody his answer, and is
// replaced, but not at once.
func TestAChildThatIsKilledIsReplaced(t *testing.T) {
	f := newFamily(t, "hash-worker", Cost{MemoryKiB: 64 << 10, Iterations: 4, Parallelism: 1})
	password := api.NewSecret("correct horse battery")
	phc, err := f.Hash(t.Context(), Lane{}, password)
	if err != nil {
		t.Fatal(err)
	}
	first := f.child()
	work := func() int { // in clock ticks
		n, err := strconv.Atoi(statOf(t, fmt.Sprintf("/proc/%d/stat", first))[userTimeField])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := work()
	answered := make(chan bool, 1)
	go func() { answered <- f.verifies(password, phc) }()
	await(t, func() bool { return work() > before })
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !<-answered {
		t.Error("the right password is refused")
	}
	f.wants(t, 1)
	if left := childrenOfThis(t); len(left) != 0 {
		t.Errorf("%d children, dead ones included, want none", len(left))
	}
	if f.verifies(api.NewSecret("another horse battery"), phc) {
		t.Error("a wrong password is taken")
	}
	f.wants(t, 1)
	if left := childrenOfThis(t); len(left) != 0 {
		t.Error("it is replaced at once")
	}

	f.clock.Advance(childPause)
	if !f.verifies(password, phc) {
		t.Error("the right password is refused by the new child")
	}
	if f.child() == first {
		t.Error("there is no new child")
	}
	f.wants(t, 1)
	if err := syscall.Kill(f.child(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return len(childrenOfThis(t)) == 0 }) // reaped, though nobody asks
	f.hashes(t)
	f.wants(t, 2) // trouble that had ended is told of again
}

func TestAChildThatIsOfNoUse(t *testing.T) {
	for mode, why := range map[string]string{
		"missing":   "it cannot be started",
		"hash-none": "it ends at once",
		"hash-junk": "it answers what is no JSON",
		"hash-old":  "it says yes to another question",
		"hash-yes":  "it says yes where a hash was to be made", // the second question is for one
		"hash-bad":  "it makes what is no hash",
		"hash-long": "its answer has no end",
		"hash-mute": "it never answers",
	} {
		t.Run(mode, func(t *testing.T) {
			f, here := newFamily(t, mode, cheap), cheapHasher(t)
			right, wrong := api.NewSecret("correct horse battery"), api.NewSecret("another horse battery")
			phc, err := here.Hash(t.Context(), Lane{}, right)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				f.clock.Advance(childPause)
				if f.verifies(wrong, phc) {
					t.Errorf("%s, and a wrong password is taken", why)
				}
				f.clock.Advance(childPause)
				made, err := f.Hash(t.Context(), Lane{}, right)
				if ok, fault := here.Verify(t.Context(), Lane{}, right, made); err != nil || !ok {
					t.Errorf("%s, and so does what is made of a password: %v, %v", why, err, fault)
				}
				if left := childrenOfThis(t); len(left) != 0 {
					t.Errorf("%s, and yet it stays", why)
				}
				f.wants(t, 1)
			}
		})
	}
}

func TestCloseEndsTheChildren(t *testing.T) {
	f := newFamily(t, "hash-worker", cheap)
	f.hashes(t)
	child := f.child()
	stopped := syscall.Kill(child, syscall.SIGSTOP)
	f.Close()
	f.Close()
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", child)); stopped != nil || !os.IsNotExist(err) {
		t.Errorf("it is still there: %v, %v", stopped, err)
	}
}

func TestAChildEndsWithItsInput(t *testing.T) {
	worker := worker{Hasher: newFamily(t, "hash-worker", cheap).Hasher}
	if err := worker.start(); err != nil {
		t.Fatal(err)
	}
	defer worker.stop()
	if err := worker.child.in.(io.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-worker.child.exited:
	case <-time.After(10 * time.Second):
		t.Error("it waits on")
	}
}

func TestAHashWorkerBelievesNothing(t *testing.T) {
	phc := cheapHasher(t).decoy
	good := `{"number":7,"make":false,"password":"eA==","phc":"` + phc + `"}` + "\n"
	for why, tt := range map[string]struct {
		in, out string
		fails   bool
	}{
		"nothing":             {"", "", false},
		"two questions":       {good + good, strings.Repeat(`{"number":7,"match":false,"phc":"","failed":false}`+"\n", 2), false},
		"half a question":     {good[:40], "", false},
		"no JSON":             {"hello\n", "", true},
		"an unknown member":   {strings.Replace(good, "make", "mace", 1), "", true},
		"a hash out of reach": {strings.Replace(good, "m=64", "m=999999999", 1), "", true},
		"a line without end":  {strings.Repeat(" ", maxLine) + good, "", true},
	} {
		var out bytes.Buffer
		if err := answerAll(strings.NewReader(tt.in), &out); (err != nil) != tt.fails || out.String() != tt.out {
			t.Errorf("%s: %q, %v", why, out.String(), err)
		} else if err != nil && strings.Contains(err.Error(), phc) {
			t.Errorf("%s: the error shows a hash: %v", why, err)
		}
	}
}

// TestMain is also the children of this package's tests, by their first argument:
// a hash worker, or one of those that are of no use.
func TestMain(m *testing.M) {
	mode := ""
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	say := func(answer string, ends bool) {
		line := make([]byte, maxLine)
		for {
			if _, err := os.Stdin.Read(line); err != nil {
				return
			}
			fmt.Print(answer)
			if ends {
				fmt.Println()
			}
		}
	}
	switch mode {
	case "hash-worker":
		if HashWorker(os.Stdin, os.Stdout) != nil {
			os.Exit(1)
		}
	case "hash-none":
	case "hash-junk":
		say("nonsense", true)
	case "hash-old":
		say(`{"number":0,"match":true,"phc":"","failed":false}`, true)
	case "hash-yes":
		say(`{"number":2,"match":true,"phc":"","failed":false}`, true)
	case "hash-bad":
		say(`{"number":2,"match":false,"phc":"$argon2id$v=19$m=1,t=1,p=1$AAAA$AAAA","failed":false}`, true)
	case "hash-long":
		say(strings.Repeat("[", 2*maxLine), false)
	case "hash-mute":
		say("", false)
	default:
		m.Run()
		return
	}
	os.Exit(0)
}

// family is a Hasher with one worker, whose child is observed.
type family struct {
	*Hasher

	t     *testing.T
	clock *clock.Fake
	told  atomic.Int32
}

func newFamily(t *testing.T, mode string, cost Cost) *family {
	t.Helper()
	goroutines := goleak.IgnoreCurrent()
	f := &family{t: t, clock: clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))}
	command := "/proc/self/exe"
	if mode == "missing" {
		command = filepath.Join(t.TempDir(), "missing")
	}
	f.Hasher = NewHasherCost(1, 8, cost, InChild(func(error) { f.told.Add(1) }, command, mode), func(h *Hasher) {
		h.clock = f.clock
		if mode == "hash-mute" {
			h.inChild.patience = 50 * time.Millisecond
		}
	})
	t.Cleanup(func() {
		f.Close()
		if left := childrenOfThis(t); len(left) != 0 {
			t.Errorf("Close leaves %v", left)
		}
		if err := goleak.Find(goroutines); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *family) verifies(password, phc api.Secret) bool {
	ok, err := f.Verify(f.t.Context(), Lane{}, password, phc)
	if err != nil {
		f.t.Error(err)
	}
	return ok
}

// hashes does some work.
func (f *family) hashes(t *testing.T) {
	t.Helper()
	if _, err := f.Hash(t.Context(), Lane{}, api.NewSecret("correct horse battery")); err != nil {
		t.Fatal(err)
	}
}

// wants says how often trouble is to have been told of so far.
func (f *family) wants(t *testing.T, told int32) {
	t.Helper()
	if got := f.told.Load(); got != told {
		t.Errorf("told of trouble %d times, want %d", got, told)
	}
}

// child is the only one there is.
func (f *family) child() int {
	f.t.Helper()
	children := childrenOfThis(f.t)
	if len(children) != 1 {
		f.t.Fatalf("%d children, want 1", len(children))
	}
	return children[0]
}

// Where proc_pid_stat(5) tells what, counted from the state.
const (
	parentField   = 1
	groupField    = 2
	userTimeField = 11
	nicenessField = 16
)

func statOf(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

func read(t *testing.T, pid int, name string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// childrenOfThis are the children of this process, dead ones included.
func childrenOfThis(t *testing.T) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		t.Fatalf("no processes: %v", err)
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		if fields[parentField] == strconv.Itoa(os.Getpid()) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// await waits until something is so.
func await(t *testing.T, so func() bool) {
	t.Helper()
	look, late := time.NewTicker(time.Millisecond), time.NewTimer(20*time.Second)
	defer look.Stop()
	defer late.Stop()
	for !so() {
		select {
		case <-look.C:
		case <-late.C:
			t.Fatal("it does not come to be so")
		}
	}
}
