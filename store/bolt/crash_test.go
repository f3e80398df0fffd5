package bolt

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sessiond/store"
)

// The test binary, started again with a role in its environment, is a process
// that may be killed or starved.
const (
	childRole = "SESSIOND_TEST_CHILD"
	childPath = "SESSIOND_TEST_PATH"
)

// child plays a role, if there is one to play.
func child(role string) bool {
	path := os.Getenv(childPath)
	if len(os.Args) > 1 && checker(os.Args[1]) {
		return true
	}
	switch role {
	case "commit":
		fail(commitForever(path, os.Args[len(os.Args)-1]))
	case "compact":
		fail(compactForever(path, os.Args[len(os.Args)-1]))
	case "upgrade":
		fail(upgradeUntil(path, os.Args[len(os.Args)-1]))
	case "full, growing":
		fail(fillUp(path, 64<<10))
	case "full, writing":
		fail(fillUp(path, -12<<20))
	default:
		return false
	}
	return true
}

func fail(err error) {
	if err != nil {
		_, _ = os.Stdout.WriteString("child: " + err.Error() + "\n")
		os.Exit(1)
	}
}

func startChild(t *testing.T, role, path string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), childRole+"="+role, childPath+"="+path)
	cmd.Stderr = os.Stderr
	return cmd
}

func TestKilledProcessKeepsWhatItAcknowledged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	acked := map[string]string{}
	for round := range 5 {
		cmd := startChild(t, "commit", path, fmt.Sprint(round))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			key, value, ok := strings.Cut(lines.Text(), "=")
			if !ok {
				t.Errorf("round %d: %s", round, lines.Text())
				continue
			}
			acked[key] = value
			if n == 300 { // what was said until it died counts as well
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // it was killed

		sum := verified(t, path)
		if sum.Kinds["k"] < uint64(len(acked)) || sum.Kinds["k"] != sum.Kinds["log"] {
			t.Errorf("round %d: %d records and %d entries, %d were acknowledged", round, sum.Kinds["k"], sum.Kinds["log"], len(acked))
		}
		s := open(t, path)
		for key, value := range acked {
			if item, err := s.Get(t.Context(), key); err != nil || string(item.Value) != value {
				t.Errorf("round %d: acknowledged %s is %q, %v", round, key, item.Value, err)
			}
		}
		shut(t, s)
	}
	if len(acked) < 5*300 {
		t.Errorf("only %d commits were acknowledged", len(acked))
	}
}

// commitForever commits from several goroutines and prints what is acknowledged.
func commitForever(path, round string) error {
	ctx := context.Background()
	s, err := Open(ctx, path, Options{})
	if err != nil {
		return err
	}
	commitInto(ctx, s, round, func() {})
	return nil
}

// commitInto does so for ever. What it tells of was printed.
func commitInto(ctx context.Context, s *Store, round string, tell func()) {
	var group sync.WaitGroup
	for worker := range 16 {
		group.Go(func() {
			for i := 0; ; i++ {
				key, value := fmt.Sprintf("k/%s-%d-%d", round, worker, i), strings.Repeat(fmt.Sprint(i), 50)
				_, err := s.Commit(ctx, store.Tx{
					If:     []store.Cond{{Key: key}},
					Put:    []store.Put{{Key: key, Value: []byte(value)}},
					Append: [][]byte{[]byte(key)},
				})
				fail(err)
				_, _ = os.Stdout.WriteString(key + "=" + value + "\n")
				tell()
			}
		})
	}
	group.Wait()
}

func TestFullDiskRefusesAndGoesOn(t *testing.T) {
	for _, role := range []string{"full, growing", "full, writing"} {
		t.Run(role, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			out, err := startChild(t, role, path).Output()
			if err != nil || !bytes.Contains(out, []byte("resumed")) {
				t.Errorf("child: %v\n%s", err, out)
			}
			verified(t, path)
		})
	}
}

// fillUp limits the size of files to that of the store plus room, commits until
// it is full, lifts the limit and goes on.
func fillUp(path string, room int64) error {
	ctx := context.Background()
	signal.Ignore(syscall.SIGXFSZ)
	s, err := Open(ctx, path, Options{})
	if err != nil {
		return err
	}
	n := 0
	add := func() error {
		_, err := s.Commit(ctx, store.Tx{
			Put:    []store.Put{{Key: fmt.Sprintf("a/%05d", n), Value: bytes.Repeat([]byte{byte(n)}, 500<<10)}},
			Append: [][]byte{fmt.Appendf(nil, "entry %d", n)},
		})
		if err == nil {
			n++
		}
		return err
	}
	if err := add(); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	lower := limit
	lower.Cur = uint64(info.Size() + room)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &lower); err != nil {
		return err
	}
	for err == nil {
		err = add()
	}
	for range 3 { // it does not get worse
		rev := s.Rev()
		if !errors.Is(err, store.ErrFull) || s.Failed() != nil || s.Rev() != rev {
			return fmt.Errorf("after %d commits: %w, failed: %w", n, err, s.Failed())
		}
		err = add()
	}
	if s.Full() == nil {
		return errors.New("the store does not say that it is full")
	}
	// What is urgent is tried, and fits into free pages.
	if _, err := s.Commit(ctx, store.Tx{Urgent: true, Put: []store.Put{{Key: "u/small"}}}); err != nil && !errors.Is(err, store.ErrFull) {
		return err
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	for tries := 0; errors.Is(err, store.ErrFull) && tries < 100; tries++ { // it looks each second
		time.Sleep(100 * time.Millisecond)
		err = add()
	}
	for range 5 {
		if err := errors.Join(err, add(), s.Full()); err != nil {
			return fmt.Errorf("after the limit was lifted: %w", err)
		}
	}
	items, err := s.List(ctx, store.Range{Prefix: "a/0"})
	if err != nil || len(items) != n {
		return fmt.Errorf("%d items of %d: %w", len(items), n, err)
	}
	_, _ = os.Stdout.WriteString("resumed\n")
	return s.Close()
}
