package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"sessiond/store"
	"sessiond/store/storetest"
)

func TestMain(m *testing.M) {
	if child(os.Getenv(childRole)) {
		return
	}
	goleak.VerifyTestMain(m)
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		t.Helper()
		return checked{open(t, filepath.Join(t.TempDir(), "store.db")), t}
	})
}

// checked is a store that is verified on its way out.
type checked struct {
	*Store
	t *testing.T
}

func (c checked) Close() error {
	path, again := c.path, c.closed.Load()
	err := c.Store.Close()
	if !again {
		verified(c.t, path)
	}
	return err
}

func verified(t *testing.T, path string) Summary {
	t.Helper()
	sum, err := Verify(context.WithoutCancel(t.Context()), path, nil)
	if err != nil {
		t.Errorf("Verify: %v", err)
		return sum
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	db, err := openDB(f, &bbolt.Options{ReadOnly: true, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, NoStatistics: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	_ = db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Errorf("bbolt itself: %v", err)
		}
		return nil
	})
	return sum
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	var rev store.Rev
	for i := range 200 {
		rev = commit(t, s, store.Tx{
			Put:    []store.Put{{Key: fmt.Sprintf("a/%03d", i), Value: fmt.Appendf(nil, "value %d", i)}},
			Append: [][]byte{fmt.Appendf(nil, "entry %d", i)},
		})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	sum := verified(t, path)
	if diff := cmp.Diff(map[string]uint64{"a": 200, "log": 200}, sum.Kinds); diff != "" {
		t.Errorf("kinds (-want +got):\n%s", diff)
	}
	if sum.Rev != rev || sum.Head.Seq != 200 || sum.Bytes == 0 || sum.Size == 0 {
		t.Errorf("summary %+v, want revision %d and position 200", sum, rev)
	}

	s = open(t, path)
	defer shut(t, s)
	if s.Rev() != rev {
		t.Errorf("revision %d, want %d", s.Rev(), rev)
	}
	item, err := s.Get(t.Context(), "a/199")
	if diff := cmp.Diff(store.Item{Key: "a/199", Value: []byte("value 199"), Rev: rev}, item); diff != "" || err != nil {
		t.Errorf("item, %v (-want +got):\n%s", err, diff)
	}
	if next := commit(t, s, store.Tx{Append: [][]byte{[]byte("after")}}); next <= rev {
		t.Errorf("revision %d after %d", next, rev)
	}
	head, err := store.VerifyLog(t.Context(), s, sum.Head, nil)
	if err != nil || head.Seq != 201 {
		t.Errorf("VerifyLog from the noted head = %d, %v", head.Seq, err)
	}
}

func TestFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a [1]") // which means something else in a pattern
	if err := MakeFolder(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "store.db")
	left := path + ".new-123" // of a start that was cut short
	if err := os.WriteFile(left, []byte("half"), fileMode); err != nil {
		t.Fatal(err)
	}
	shut(t, open(t, path))
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 || names[0].Name() != "store.db" {
		t.Errorf("the folder holds %v, %v, want store.db alone", names, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != fileMode {
		t.Errorf("mode %v, %v, want %v", info.Mode(), err, os.FileMode(fileMode))
	}
}

func TestSecondOpenerIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	defer shut(t, s)
	if _, err := Open(t.Context(), path, Options{Lock: 40 * time.Millisecond}); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "another server") {
		t.Errorf("Open: %v, want ErrLocked", err)
	}
	if _, err := Verify(t.Context(), path, nil); !errors.Is(err, ErrLocked) {
		t.Errorf("Verify: %v, want ErrLocked", err)
	}
	commit(t, s, store.Tx{Append: [][]byte{[]byte("the first goes on")}})
}

func TestManyStartAtOnceAndOneWins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	var group sync.WaitGroup
	var mu sync.Mutex
	var won []*Store
	for range 6 {
		group.Go(func() {
			s, err := Open(t.Context(), path, Options{Lock: 40 * time.Millisecond})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won = append(won, s)
			} else if !errors.Is(err, ErrLocked) {
				t.Errorf("Open: %v, want ErrLocked", err)
			}
		})
	}
	group.Wait()
	if len(won) != 1 {
		t.Errorf("%d have the store open, want 1", len(won))
	}
	for _, s := range won {
		shut(t, s)
	}
}

func TestUnusablePlaces(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("not a store, but long enough to hold the head of a page, at least, as one would think"), fileMode); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, fileMode); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, path, want string
	}{
		{"no folder", filepath.Join(dir, "none", "store.db"), "the data folder cannot be written"},
		{"a file as folder", filepath.Join(file, "store.db"), "cannot be opened"},
		{"a folder that takes no files", "/proc/store.db", "the data folder cannot be written"},
		{"a folder as file", dir, "cannot be opened"},
		{"another file", file, "neither meta page is sound"},
		{"an empty file", empty, "the file is empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := Open(t.Context(), test.path, Options{})
			if err == nil {
				shut(t, s)
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Open: %v, want %q", err, test.want)
			}
		})
	}
	if got, err := os.ReadFile(empty); err != nil || len(got) != 0 {
		t.Errorf("the empty file was written to: %d bytes, %v", len(got), err)
	}
}

func TestBusyWhenTheQueueIsFull(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "store.db"), Options{Queue: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, s)
	var order []string
	entered, release := make(chan struct{}), make(chan struct{})
	stop, err := s.Watch(0, func(c store.Change) {
		order = append(order, c.Put[0].Key)
		if len(order) == 1 {
			close(entered)
			<-release
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	var group sync.WaitGroup
	add := func(key string, urgent bool) {
		before := s.queue.waiting.Load()
		group.Go(func() { commit(t, s, store.Tx{Put: []store.Put{{Key: key}}, Urgent: urgent}) })
		for key != "a/first" && s.queue.waiting.Load() == before {
			time.Sleep(time.Millisecond)
		}
	}
	add("a/first", false)
	<-entered // the writer is held up in its watcher
	for i := range 3 {
		add(fmt.Sprintf("a/%d", i), false)
	}
	if _, err := s.Commit(t.Context(), store.Tx{}); !errors.Is(err, store.ErrBusy) {
		t.Errorf("Commit into a full queue: %v, want ErrBusy", err)
	}
	add("u/0", true)
	add("u/1", true)
	gone, cancel := context.WithCancel(t.Context())
	group.Go(func() {
		if _, err := s.Commit(gone, store.Tx{Urgent: true, Put: []store.Put{{Key: "u/gone"}}}); !errors.Is(err, store.ErrBusy) {
			t.Errorf("a withdrawn Commit: %v, want ErrBusy", err)
		}
	})
	for s.queue.waiting.Load() < 6 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	for !s.queue.urgentWithdrawn() {
		time.Sleep(time.Millisecond)
	}
	close(release)
	group.Wait()
	if diff := cmp.Diff([]string{"a/first", "u/0", "u/1", "a/0", "a/1", "a/2"}, order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

// urgentWithdrawn reports whether the last urgent request has lost its caller.
func (q *queue) urgentWithdrawn() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.urgent[len(q.urgent)-1].claimed.Load()
}

func TestPoison(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	commit(t, s, store.Tx{Put: []store.Put{{Key: "a/1", Value: []byte("kept")}}})
	if s.Failed() != nil {
		t.Errorf("Failed before anything did: %v", s.Failed())
	}
	called := false
	if _, err := s.Watch(s.Rev(), func(store.Change) { called = true }); err != nil {
		t.Fatal(err)
	}
	rev := s.Rev()
	if err := s.file.Close(); err != nil { // the disk is gone
		t.Fatal(err)
	}
	_, err := s.Commit(t.Context(), store.Tx{Put: []store.Put{{Key: "a/2", Value: []byte("unknown")}}})
	if !errors.Is(err, store.ErrUnknown) || errors.Is(err, store.ErrStopped) {
		t.Errorf("the commit under way: %v, want ErrUnknown", err)
	}
	for range 3 {
		if _, err := s.Commit(t.Context(), store.Tx{}); !errors.Is(err, store.ErrStopped) || !errors.Is(err, os.ErrClosed) {
			t.Errorf("a later commit: %v, want ErrStopped with its cause", err)
		}
	}
	if !errors.Is(s.Failed(), os.ErrClosed) {
		t.Errorf("Failed = %v, want the cause", s.Failed())
	}
	if item, err := s.Get(t.Context(), "a/1"); err != nil || string(item.Value) != "kept" {
		t.Errorf("Get = %q, %v", item.Value, err)
	}
	if called || s.Rev() != rev {
		t.Errorf("a failed commit is told: revision %d, watcher called: %v", s.Rev(), called)
	}
	_ = s.Close() // says that the file is closed already
	shut(t, open(t, path))
}

// A panic in bbolt must not take the server down, nor leave it hanging.
func TestPanicInTheWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	commit(t, s, store.Tx{Put: []store.Put{{Key: "a/1", Value: []byte("kept")}}})
	w := &writer{Store: s, space: s.reserve(), state: state{rev: s.Rev()}}
	if err := w.transact([]*request{nil}); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("the batch in which it panicked: %v, want ErrUnknown", err)
	}
	if _, err := s.Commit(t.Context(), store.Tx{}); !errors.Is(err, store.ErrStopped) {
		t.Errorf("a later commit: %v, want ErrStopped", err)
	}
	if item, err := s.Get(t.Context(), "a/1"); err != nil || string(item.Value) != "kept" {
		t.Errorf("Get = %q, %v", item.Value, err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	shut(t, open(t, path))
}

func TestBytesOfAValue(t *testing.T) {
	got := seal(append(make([]byte, valueHead), "payload"...), 0, "kind", []byte("/name"), 0x0102030405060708)
	want := append([]byte{1, 1, 2, 3, 4, 5, 6, 7, 8}, "payload"...)
	want = append(want, 0x5b, 0xdb, 0xe5, 0xcf)
	if !bytes.Equal(got, want) {
		t.Errorf("stored value % x, want % x: files of earlier days cannot be read", got, want)
	}
	for i := range got {
		for bit := range 8 {
			got[i] ^= 1 << bit
			if _, _, err := unseal("kind", []byte("/name"), got); !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("bit %d of byte %d flipped: %v, want ErrCorrupt", bit, i, err)
			}
			got[i] ^= 1 << bit
		}
	}
	if _, _, err := unseal("kind", []byte("/other"), got); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("under another key: %v, want ErrCorrupt", err)
	}
}

func open(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s
}

func shut(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func commit(t testing.TB, s *Store, tx store.Tx) store.Rev {
	t.Helper()
	rev, err := s.Commit(t.Context(), tx)
	if err != nil {
		t.Errorf("Commit: %v", err)
	}
	return rev
}
