package bolt

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sessiond/store"
)

// Compacting under load loses nothing, is not seen by readers, and leaves a file that
// is no larger than it has to be.
func TestCompactUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	for i := range 100 { // most of it goes
		commit(t, s, store.Tx{Put: []store.Put{{Key: fmt.Sprint("big/", i), Value: make([]byte, 200<<10)}}})
	}
	for i := range 100 {
		commit(t, s, store.Tx{Delete: []string{fmt.Sprint("big/", i)}})
	}
	commit(t, s, store.Tx{Put: []store.Put{{Key: "still/there", Value: []byte("yes")}}})
	l := startLoad(t, s)
	var readers sync.WaitGroup
	ctx, end := context.WithCancel(t.Context())
	for range 2 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if _, err := s.List(t.Context(), store.Range{Prefix: "still/"}); err != nil {
					t.Errorf("List: %v", err)
					return
				}
				if item, err := s.Get(t.Context(), "still/there"); err != nil || string(item.Value) != "yes" {
					t.Errorf("Get: %q, %v", item.Value, err)
					return
				}
			}
		})
	}
	for n := range 3 {
		l.wait(300)
		before, after, err := s.Compact(t.Context(), CopyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 && after > before/4 {
			t.Errorf("%d bytes, before %d", after, before)
		}
		if _, err := Open(t.Context(), path, Options{Lock: 1}); err == nil {
			t.Error("another got hold of the file")
		}
		alone(t, path)
	}
	l.wait(300)
	end()
	readers.Wait()
	l.stop()
	acked := l.acknowledged()
	shut(t, s)
	verified(t, path)
	acked.in(t, path)
}

// A store on another disk, to which a link leads, stays there.
func TestCompactBehindALink(t *testing.T) {
	path := sample(t)
	link := filepath.Join(t.TempDir(), "store.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	s := open(t, link)
	if _, _, err := s.Compact(t.Context(), CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	commit(t, s, store.Tx{Put: []store.Put{{Key: "a/on", Value: []byte("on")}}})
	shut(t, s)
	if target, err := os.Readlink(link); err != nil || target != path {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	alone(t, path)
	alone(t, link)
	s = open(t, path)
	defer shut(t, s)
	if _, err := s.Get(t.Context(), "a/on"); err != nil {
		t.Errorf("what was committed afterwards: %v", err)
	}
}

// Who is killed while he compacts leaves the old file or the new one.
func TestKilledWhileCompacting(t *testing.T) {
	for _, point := range []string{"before the rename", "after the rename", "changed", "copying"} {
		t.Run(point, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			acked := map[string]string{}
			cmd := startChild(t, "compact", path, point)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for lines := bufio.NewScanner(out); lines.Scan(); {
				key, value, ok := strings.Cut(lines.Text(), "=")
				if !ok {
					t.Error(lines.Text())
				}
				acked[key] = value
			}
			if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
				t.Fatalf("it was not killed: %v", err)
			}
			s := open(t, path) // sweeps
			for key, value := range acked {
				if item, err := s.Get(t.Context(), key); err != nil || string(item.Value) != value {
					t.Errorf("acknowledged %s is %q, %v", key, item.Value, err)
				}
			}
			shut(t, s)
			verified(t, path)
			alone(t, path)
			if len(acked) < leastCommits {
				t.Errorf("only %d commits were acknowledged", len(acked))
			}
		})
	}
}

const (
	leastCommits    = 300
	leastCompacting = 3 // times
)

// compactForever compacts under load, and dies at a point once enough was done before.
func compactForever(path, at string) error {
	ctx := context.Background()
	rounds := 0
	var commits atomic.Int64
	die := func(point string) {
		if point == at && rounds > leastCompacting && commits.Load() >= leastCommits {
			kill()
		}
	}
	s, err := Open(ctx, path, Options{point: die})
	if err != nil {
		return err
	}
	go commitInto(ctx, s, "0", func() { commits.Add(1) })
	for {
		rounds++
		if _, _, err := s.Compact(ctx, CopyOptions{Report: func(uint64, uint64) { die("copying") }}); err != nil {
			return err
		}
	}
}

func kill() {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	fail(err)
	select {} // it comes at once
}
