//go:build linux

package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"sessiond/store"
)

const mib = 1 << 20

// told collects reports, and waits for one.
type told chan Report

func (c told) options(o Options) Options {
	o.Report = func(r Report) { c <- r }
	return o
}

func (c told) next(t *testing.T) Report {
	t.Helper()
	select {
	case r := <-c:
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("nothing is reported")
		return Report{}
	}
}

func openWith(t *testing.T, path string, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s
}

func TestBallast(t *testing.T) {
	for _, tt := range []struct {
		name    string
		before  int64 // size of the ballast that is there; -1: none
		options Options
		after   int64
	}{
		{"made", -1, Options{Ballast: mib}, mib},
		{"found", mib, Options{Ballast: mib}, mib},
		{"found, of another size", 2 * mib, Options{Ballast: mib}, mib},
		{"an eighth of the largest file", -1, Options{Ballast: mib, MaxSize: 4 * mib}, mib / 2},
		{"not wanted any more", mib, Options{Ballast: -1}, -1},
		{"left alone by a tool", mib, Options{}, mib},
		{"not made by a tool", -1, Options{}, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			if tt.before >= 0 {
				if err := os.WriteFile(path+ballastFile, make([]byte, tt.before), fileMode); err != nil {
					t.Fatal(err)
				}
			}
			s := openWith(t, path, tt.options)
			commit(t, s, store.Tx{Put: []store.Put{{Key: "a/1"}}})
			shut(t, s)
			info, err := os.Stat(path + ballastFile)
			switch {
			case tt.after < 0:
				if !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("ballast: %v, want none", err)
				}
			case err != nil || info.Size() != tt.after || allocated(info) < tt.after || info.Mode() != fileMode:
				t.Errorf("ballast: %+v, %v, want %d bytes that are really taken", info, err, tt.after)
			}
		})
	}
}

// A sparse file sets nothing aside.
func TestBallastOfHolesIsMadeAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	if err := os.WriteFile(path+ballastFile, nil, fileMode); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path+ballastFile, mib); err != nil {
		t.Fatal(err)
	}
	shut(t, openWith(t, path, Options{Ballast: mib}))
	if info, err := os.Stat(path + ballastFile); err != nil || allocated(info) < mib {
		t.Errorf("ballast: %+v, %v, want one that takes up space", info, err)
	}
}

// A store that is full refuses whatever is not urgent, without trying, takes a
// thousand ends, and goes on once enough was removed.
func TestFullStoreTakesEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	reports := make(told, 10)
	s := openWith(t, path, reports.options(Options{MaxSize: 8 * mib, Ballast: 16 * mib}))
	n, large := 0, bytes.Repeat([]byte{'v'}, 100_000)
	add := func() error {
		_, err := s.Commit(t.Context(), store.Tx{Put: []store.Put{{Key: fmt.Sprintf("a/%05d", n), Value: large}}})
		if err == nil {
			n++
		}
		return err
	}
	var err error
	for err == nil {
		err = add()
	}
	if !errors.Is(err, store.ErrFull) || !errors.Is(s.Full(), store.ErrFull) || s.Failed() != nil || n < 40 {
		t.Fatalf("after %d commits: %v; full: %v; failed: %v", n, err, s.Full(), s.Failed())
	}
	if r := reports.next(t); r.Condition != Full || r.Cause == nil {
		t.Errorf("reported: %+v, want Full and why", r)
	}
	if _, err := os.Stat(path + ballastFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the ballast was not given free: %v", err)
	}
	rev := s.Rev()
	for range 1000 {
		if err := add(); !errors.Is(err, store.ErrFull) {
			t.Fatalf("a commit that is not urgent: %v, want ErrFull", err)
		}
	}
	endMany(t, s, 0)
	if got := s.Rev() - rev; got != 1000 {
		t.Errorf("%d commits, want 1000", got)
	}
	for i := range n / 2 {
		commit(t, s, store.Tx{Urgent: true, Delete: []string{fmt.Sprintf("a/%05d", i)}})
	}
	if r := reports.next(t); r.Condition != Resumed || s.Full() != nil {
		t.Errorf("reported: %+v, full: %v, want it resumed", r, s.Full())
	}
	// The free pages that stand for what was set aside are not given away.
	for err = add(); err == nil; {
		err = add()
	}
	if r := reports.next(t); !errors.Is(err, store.ErrFull) || r.Condition != Full {
		t.Errorf("full again: %v, reported: %+v", err, r)
	}
	endMany(t, s, 1000)
	shut(t, s)
	verified(t, path)
}

// endMany commits what ends of a thousand sessions look like, from a number on.
func endMany(t *testing.T, s *Store, from int) {
	t.Helper()
	var group sync.WaitGroup
	for worker := range 20 {
		group.Go(func() {
			for i := range 50 {
				commit(t, s, store.Tx{
					Urgent: true,
					Put:    []store.Put{{Key: fmt.Sprintf("end/%05d", from+50*worker+i), Value: make([]byte, 100)}},
					Append: [][]byte{make([]byte, 300)},
				})
			}
		})
	}
	group.Wait()
}

// Requests of one batch that meets a full disk: the urgent ones are tried again,
// those with a condition against what is there.
func TestBatchThatMeetsTheFullDisk(t *testing.T) {
	s := openWith(t, filepath.Join(t.TempDir(), "store.db"), Options{MaxSize: 4 * mib, Ballast: mib})
	defer shut(t, s)
	commit(t, s, store.Tx{Put: []store.Put{{Key: "a/1"}}})
	w := writerOf(t, s)
	huge := bytes.Repeat([]byte{'v'}, mib)
	batch := []*request{
		newRequest(store.Tx{Urgent: true, If: []store.Cond{{Key: "u/1"}}, Put: []store.Put{{Key: "u/1"}}}),
		newRequest(store.Tx{Urgent: true, If: []store.Cond{{Key: "u/1"}}, Put: []store.Put{{Key: "u/1"}}}),
	}
	for i := range 5 {
		var tx store.Tx
		tx.Put = []store.Put{{Key: fmt.Sprintf("b/%d", i), Value: huge}}
		batch = append(batch, newRequest(tx))
	}
	all := append([]*request{}, batch...)
	w.commit(batch)
	w.space.rest()
	for i, want := range []error{nil, store.ErrConflict, store.ErrFull, store.ErrFull, store.ErrFull, store.ErrFull, store.ErrFull} {
		<-all[i].done
		if !errors.Is(all[i].err, want) || (all[i].rev != 0) != (want == nil) {
			t.Errorf("request %d: revision %d, %v, want %v", i, all[i].rev, all[i].err, want)
		}
	}
}

// On a full disk what is small and urgent is not refused for what is large beside it.
func TestLargeKeepsOutNoneThatIsSmall(t *testing.T) {
	s := openWith(t, filepath.Join(t.TempDir(), "store.db"), Options{MaxSize: 4 * mib, Ballast: mib})
	defer shut(t, s)
	commit(t, s, store.Tx{Put: []store.Put{{Key: "a/1"}}})
	w := writerOf(t, s)
	w.space.fill(errors.New("by a test"))
	defer w.space.rest()
	var batch []*request
	for i, size := range []int{1, 5 * mib, 1, 1} {
		batch = append(batch, newRequest(store.Tx{Urgent: true, Put: []store.Put{{Key: fmt.Sprintf("u/%d", i), Value: make([]byte, size)}}}))
	}
	w.commit(slices.Clone(batch))
	for i, want := range []error{nil, store.ErrFull, nil, nil} {
		<-batch[i].done
		if !errors.Is(batch[i].err, want) || (batch[i].rev != 0) != (want == nil) {
			t.Errorf("request %d: revision %d, %v, want %v", i, batch[i].rev, batch[i].err, want)
		}
	}
	for i := range batch {
		if _, err := s.Get(t.Context(), fmt.Sprintf("u/%d", i)); (err == nil) != (i != 1) {
			t.Errorf("request %d: Get: %v", i, err)
		}
	}
}

// writerOf returns a writer beside the one of s, which must have nothing to do.
func writerOf(t *testing.T, s *Store) *writer {
	t.Helper()
	w := &writer{Store: s, space: &space{Store: s, want: mib / 2}}
	if err := s.read(func(tx *bbolt.Tx) (err error) {
		w.state, err = readState(tx)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return w
}

// Errors of a full disk that say that nothing was applied, and others.
func TestWhatIsFull(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	defer shut(t, s)
	w := &writer{Store: s}
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{&fs.PathError{Op: "write", Err: syscall.ENOSPC}, true},
		{&fs.PathError{Op: "write", Err: syscall.EDQUOT}, true},
		{&fs.PathError{Op: "write", Err: syscall.EFBIG}, true},
		{&fs.PathError{Op: "write", Err: syscall.EIO}, false},
		{&fs.PathError{Op: "write", Err: syscall.EROFS}, false},
		{syscall.ENOSPC, false}, // of fdatasync: what it has dropped nobody knows
		{syscall.EIO, false},
		{errors.New("file resize error: hidden"), false}, // asked again, it can be resized
	} {
		if got := w.full(tt.err); got != tt.want {
			t.Errorf("%v: full is %v, want %v", tt.err, got, tt.want)
		}
	}
}
