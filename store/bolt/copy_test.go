package bolt

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sessiond/store"
)

func TestRewriteHoldsTheSame(t *testing.T) {
	path := sample(t)
	want, before := content(t, path), verified(t, path)
	from, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	to := filepath.Join(t.TempDir(), "new.db")
	if err := rewrite(t.Context(), from, to); err != nil {
		t.Fatal(err)
	}
	after := verified(t, to)
	if diff := cmp.Diff(want, content(t, to)); diff != "" {
		t.Errorf("values (-old +new):\n%s", diff)
	}
	if before.Rev != after.Rev || before.Head != after.Head || before.Bytes != after.Bytes {
		t.Errorf("summary %+v, was %+v", after, before)
	}
	if err := rewrite(t.Context(), from, to); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file: %v, want ErrExist", err)
	}
}

func TestRewriteRefusesWhatIsDamaged(t *testing.T) {
	path := sample(t)
	damage(t, path, func(file []byte) []byte {
		return bytes.ReplaceAll(file, []byte("the value of 3 and 21"), []byte("the value of 3 and 12"))
	})
	from, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	to := filepath.Join(t.TempDir(), "new.db")
	if err := rewrite(t.Context(), from, to); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("rewrite: %v, want ErrCorrupt", err)
	}
	if _, err := os.Stat(to); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file is left: %v", err)
	}
}

// Who waited for the lock of a file that has lost its name to another must not take
// it for the store.
func TestAFileWithoutItsNameIsNoStore(t *testing.T) {
	path := sample(t)
	old, err := os.OpenFile(path, os.O_RDWR, fileMode)
	if err != nil {
		t.Fatal(err)
	}
	if err := lock(t.Context(), old, syscall.LOCK_EX, time.Second); err != nil {
		t.Fatal(err)
	}
	waiting, err := os.OpenFile(path, os.O_RDWR, fileMode)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = waiting.Close() }()
	tried := make(chan error, 1)
	go func() { tried <- lock(t.Context(), waiting, syscall.LOCK_EX, 10*time.Second) }()
	fresh := filepath.Join(t.TempDir(), "new.db")
	if err := rewrite(t.Context(), old, fresh); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Rename(fresh, path), old.Close()); err != nil {
		t.Fatal(err)
	}
	if err := <-tried; !errors.Is(err, ErrLocked) {
		t.Errorf("%v, want ErrLocked", err)
	}
}
