package bolt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"sessiond/store"
)

// A copy that is made under load holds all that was acknowledged before it began,
// and each commit wholly or not at all.
func TestBackupUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	defer shut(t, s)
	l := startLoad(t, s)
	for n := range 3 {
		l.wait(500)
		before := l.acknowledged()
		to := filepath.Join(t.TempDir(), fmt.Sprint("backup", n))
		var done, total uint64
		sum, err := s.Backup(t.Context(), to, CopyOptions{Rate: 4 << 20, Report: func(d, of uint64) { done, total = d, of }})
		if err != nil {
			t.Fatal(err)
		}
		if done == 0 || done != total {
			t.Errorf("reported %d of %d at last", done, total)
		}
		if again := verified(t, to); again.Rev != sum.Rev || again.Head != sum.Head || sum.Rev < before.rev {
			t.Errorf("the backup says revision %d, holds %d; %d was acknowledged", sum.Rev, again.Rev, before.rev)
		}
		if info, err := os.Stat(to); err != nil || info.Mode() != fileMode || info.Size() != sum.Size {
			t.Errorf("%v, %v, want %d bytes", info, err, sum.Size)
		}
		alone(t, to)
		before.in(t, to)
	}
	l.stop()
}

func TestBackupTakesNoPlace(t *testing.T) {
	s := open(t, sample(t))
	defer shut(t, s)
	to := filepath.Join(t.TempDir(), "there")
	if err := os.WriteFile(to, []byte("mine"), fileMode); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Backup(t.Context(), to, CopyOptions{}); !errors.Is(err, ErrExists) {
		t.Errorf("%v, want ErrExists", err)
	}
	if text, err := os.ReadFile(to); err != nil || string(text) != "mine" {
		t.Errorf("the file was changed to %q, %v", text, err)
	}
	alone(t, to)
}

// A backup takes away what one that was cut short has left, and no other backup, whatever
// it is called.
func TestBackupSweepsDrafts(t *testing.T) {
	s := open(t, sample(t))
	defer shut(t, s)
	dir := t.TempDir()
	for _, name := range []string{"b.db.new-1.db", "b.db.new-copy.db", "b.db"} {
		for _, cut := range []string{name, "other.db"} {
			if err := os.WriteFile(filepath.Join(dir, cut+draftFile), []byte("cut short"), fileMode); err != nil {
				t.Fatal(err)
			}
		}
		if err := SweepBackups(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Backup(t.Context(), filepath.Join(dir, name), CopyOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 3 {
		t.Errorf("the folder holds %v, %v", left, err)
	}
}

// Whatever ends a backup leaves neither a file nor anything that follows the store.
func TestBackupThatFails(t *testing.T) {
	tooLong := errors.New("too long")
	for name, how := range map[string]func(t *testing.T, path string) (context.Context, CopyOptions, error){
		"cancelled": func(t *testing.T, _ string) (context.Context, CopyOptions, error) {
			ctx, cancel := context.WithCancel(t.Context())
			return ctx, CopyOptions{Report: func(uint64, uint64) { cancel() }}, context.Canceled
		},
		"cancelled for a reason": func(t *testing.T, _ string) (context.Context, CopyOptions, error) {
			ctx, cancel := context.WithCancelCause(t.Context())
			return ctx, CopyOptions{Report: func(uint64, uint64) { cancel(tooLong) }}, tooLong
		},
		"a value is damaged": func(t *testing.T, path string) (context.Context, CopyOptions, error) {
			damage(t, path, func(file []byte) []byte { return flipped(t, file, "the value of 3 and 21") })
			return t.Context(), CopyOptions{}, store.ErrCorrupt
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := sample(t)
			s := open(t, path)
			for i := range 20 { // more than a page
				commit(t, s, store.Tx{Put: []store.Put{{Key: fmt.Sprint("big/more", i), Value: make([]byte, pageBytes/3)}}})
			}
			shut(t, s)
			ctx, o, want := how(t, path)
			s = unchecked(t, path)
			defer shut(t, s)
			to := filepath.Join(t.TempDir(), "backup")
			if _, err := s.Backup(ctx, to, o); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
			if left, err := filepath.Glob(to + "*"); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			commit(t, s, store.Tx{Put: []store.Put{{Key: "a/on", Value: []byte("on")}}})
		})
	}
}

func TestNoRoomSaysHowMuchIsMissing(t *testing.T) {
	dir := t.TempDir()
	_, free, ok := fileSystem(dir)
	if !ok {
		t.Fatal("the system does not say how much is free")
	}
	const more = 1 << 40
	err := room(dir, free+more)
	if full, ok := errors.AsType[*NoRoomError](err); !ok || !errors.Is(err, store.ErrFull) || full.Missing < more/2 || full.Missing > 2*more {
		t.Errorf("%v, want a NoRoomError of about %d bytes", err, more)
	}
	if err := room(dir, 1); err != nil {
		t.Error(err)
	}
	if err := writing(&os.PathError{Op: "write", Err: syscall.ENOSPC}); !errors.Is(err, store.ErrFull) {
		t.Errorf("the disk fills up while a copy is written: %v, want ErrFull", err)
	}
}

// load commits without end, of several kinds of commit.
type load struct {
	t    *testing.T
	s    *Store
	end  context.CancelFunc
	done sync.WaitGroup
	n    atomic.Int64

	mu    sync.Mutex
	acked acked
}

// acked is what was acknowledged up to a moment.
type acked struct {
	rev   store.Rev
	added map[string]string
	gone  map[string]bool
}

func startLoad(t *testing.T, s *Store) *load {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	l := &load{t: t, s: s, end: end, acked: acked{added: map[string]string{}, gone: map[string]bool{}}}
	t.Cleanup(l.stop)
	for worker := range 8 {
		l.done.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				l.one(worker, i)
			}
		})
	}
	return l
}

// one adds a value, changes one that many share, and takes an older one away.
func (l *load) one(worker, i int) {
	key := func(i int) string { return fmt.Sprintf("k/%06d-%d", i, worker) }
	value := strings.Repeat(fmt.Sprint(i), 30)
	tx := store.Tx{
		Put:    []store.Put{{Key: key(i), Value: []byte(value)}, {Key: fmt.Sprintf("shared/%d", i%50), Value: []byte(value)}},
		Append: [][]byte{[]byte(key(i))},
	}
	if i%3 == 2 {
		tx.Delete = []string{key(i - 2)}
		l.mu.Lock()
		delete(l.acked.added, key(i-2)) // it may go at any moment from now on
		l.mu.Unlock()
	}
	rev, err := l.s.Commit(context.WithoutCancel(l.t.Context()), tx)
	if err != nil {
		l.t.Errorf("Commit: %v", err)
		l.end()
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked.rev = max(l.acked.rev, rev)
	l.acked.added[key(i)] = value
	if i%3 == 2 {
		l.acked.gone[key(i-2)] = true
	}
	l.n.Add(1)
}

// wait lets n more commits happen.
func (l *load) wait(n int64) {
	for until := l.n.Load() + n; l.n.Load() < until && !l.t.Failed(); {
		_, _ = l.s.Get(l.t.Context(), "shared/0")
	}
}

func (l *load) stop() {
	l.end()
	l.done.Wait()
}

func (l *load) acknowledged() acked {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := acked{l.acked.rev, maps.Clone(l.acked.added), maps.Clone(l.acked.gone)}
	return now
}

// in checks that a closed store holds what was acknowledged, but for values that the
// load has taken away since, which every third of a worker's commits does.
func (a *acked) in(t *testing.T, path string) {
	t.Helper()
	s := open(t, path)
	defer shut(t, s)
	lost, revived := 0, 0
	for key, value := range a.added {
		item, err := s.Get(t.Context(), key)
		var i, worker int
		_, _ = fmt.Sscanf(key, "k/%d-%d", &i, &worker)
		switch {
		case errors.Is(err, store.ErrNotFound) && i%3 == 0:
		case err != nil || string(item.Value) != value:
			lost++
		}
	}
	for key := range a.gone {
		if _, err := s.Get(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
			revived++
		}
	}
	if lost > 0 || revived > 0 || len(a.added) == 0 || len(a.gone) == 0 {
		t.Errorf("of %d values %d are lost; of %d that went %d are back", len(a.added), lost, len(a.gone), revived)
	}
}

// alone checks that nothing else is in the folder of a store.
func alone(t *testing.T, path string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if err != nil || len(names) != 1 {
		t.Errorf("the folder holds %v, %v", names, err)
	}
}
