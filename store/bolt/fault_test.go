package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sessiond/store"
)

// What of the mapped file cannot be read ends writing, not the process.
func TestAPageThatIsGoneEndsWriting(t *testing.T) {
	path := sample(t)
	tr, _ := usedPages(t, path)
	s := open(t, path)
	defer func() { _ = s.Close() }()
	if err := os.Truncate(path, 2*tr.pageSize); err != nil { // but the meta pages
		t.Fatal(err)
	}
	for range 2 {
		_, err := s.Commit(t.Context(), store.Tx{If: []store.Cond{{Key: "a/3-21", Rev: 4}}, Append: [][]byte{[]byte("x")}})
		if err == nil || s.Failed() == nil {
			t.Errorf("%v, writing has stopped: %v", err, s.Failed())
		}
	}
	if _, err := s.Get(t.Context(), "a/3-21"); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("Get: %v, want ErrCorrupt", err)
	}
	if _, err := os.Stat(path + markerFile); err != nil {
		t.Errorf("there is no marker: %v", err)
	}
}

// A copy whose disk fails, or goes away, harms nothing else, and nobody calls the store
// damaged for it.
func TestACopyThatIsGoneHarmsNothingElse(t *testing.T) {
	for name, work := range map[string]func(t *testing.T, s *Store, gone func(draft string) Progress) error{
		"backup": func(t *testing.T, s *Store, gone func(string) Progress) error {
			t.Helper()
			to := filepath.Join(t.TempDir(), "backup")
			_, err := s.Backup(t.Context(), to, CopyOptions{Report: gone(to + draftFile)})
			return err
		},
		"compacting": func(t *testing.T, s *Store, gone func(string) Progress) error {
			t.Helper()
			_, _, err := s.Compact(t.Context(), CopyOptions{Report: gone(s.path + draftFile)})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			s := open(t, path)
			for i := range 60 {
				commit(t, s, store.Tx{Put: []store.Put{{Key: fmt.Sprintf("big/%02d", i), Value: make([]byte, pageBytes)}}})
			}
			err := work(t, s, func(draft string) Progress {
				n := 0
				return func(uint64, uint64) {
					if n++; n != 30 {
						return
					}
					if err := os.Truncate(draft, 8<<10); err != nil {
						t.Error(err)
					}
				}
			})
			if err == nil || errors.Is(err, store.ErrCorrupt) {
				t.Errorf("%v, want an error that does not call the store damaged", err)
			}
			commit(t, s, store.Tx{Put: []store.Put{{Key: "a/on", Value: []byte("on")}}})
			shut(t, s)
			verified(t, path)
			alone(t, path)
		})
	}
}
