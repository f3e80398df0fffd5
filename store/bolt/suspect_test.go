package bolt

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sessiond/store"
)

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func TestAFailedDiskIsCopiedAtTheNextStart(t *testing.T) {
	path := sample(t)
	want := content(t, path)
	reports := make(chan Report, 10)
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	o := Options{Ballast: 1 << 20, Report: func(r Report) { reports <- r }, Now: func() time.Time { return at }}
	s, err := Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	if exists(t, path+markerFile) {
		t.Error("there is a marker before anything failed")
	}
	if err := s.file.Close(); err != nil { // the disk is gone
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), store.Tx{Put: []store.Put{{Key: "a/new"}}}); !errors.Is(err, store.ErrUnknown) {
		t.Fatalf("Commit: %v, want ErrUnknown", err)
	}
	if r := <-reports; r.Condition != Stopped || !errors.Is(r.Cause, os.ErrClosed) {
		t.Errorf("reported: %+v, want Stopped and why", r)
	}
	_ = s.Close() // says that the file is closed already
	text, err := os.ReadFile(path + markerFile)
	if err != nil || !strings.HasPrefix(string(text), "2026-03-01T12:00:00Z ") || !strings.Contains(string(text), os.ErrClosed.Error()) {
		t.Fatalf("marker %q, %v, want when and why", text, err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = Open(t.Context(), path, o); err != nil {
		t.Fatal(err)
	}
	if r := <-reports; r.Condition != Copied {
		t.Errorf("reported: %+v, want Copied", r)
	}
	if _, err := Open(t.Context(), path, Options{Lock: time.Millisecond}); !errors.Is(err, ErrLocked) {
		t.Errorf("a second server: %v, want ErrLocked", err)
	}
	shut(t, s)
	if after, err := os.Stat(path); err != nil || os.SameFile(before, after) {
		t.Errorf("the file is the one that was there: %v", err)
	}
	if diff := cmp.Diff(want, content(t, path)); diff != "" {
		t.Errorf("values (-before +after):\n%s", diff)
	}
	verified(t, path)
	names, err := filepath.Glob(path + "*")
	if diff := cmp.Diff([]string{path, path + ballastFile}, names); diff != "" || err != nil {
		t.Errorf("files, %v (-want +got):\n%s", err, diff)
	}
}

func TestADamagedFileOfAFailedDiskStaysAsItIs(t *testing.T) {
	path := sample(t)
	if err := os.WriteFile(path+markerFile, []byte("why"), fileMode); err != nil {
		t.Fatal(err)
	}
	// Only the checksum of the value tells: the pages hold together.
	damage(t, path, func(file []byte) []byte {
		return bytes.ReplaceAll(file, []byte("the value of 3 and 21"), []byte("the value of 3 and 12"))
	})
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path, Options{}); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), `"a/3-21"`) {
		t.Errorf("Open: %v, want ErrCorrupt with the key", err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was written to: %v", err)
	}
	names, err := filepath.Glob(path + "*")
	if diff := cmp.Diff([]string{path, path + markerFile}, names); diff != "" || err != nil {
		t.Errorf("files, %v (-want +got):\n%s", err, diff)
	}
}

func TestAFileSystemThatTurnedReadOnlyGetsNoMarker(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	defer shut(t, s)
	w := &writer{Store: s}
	w.mark(&fs.PathError{Op: "write", Err: syscall.EROFS})
	if exists(t, path+markerFile) {
		t.Error("there is a marker")
	}
}

// Who waited for the lock while another process put a copy in the file's place must
// not go on with what nobody has the name of any more.
func TestTheLockOfAReplacedFileIsNoLock(t *testing.T) {
	path := sample(t)
	old, err := os.OpenFile(path, os.O_RDWR, fileMode)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = old.Close() }()
	made := path + ".made"
	if err := rewrite(t.Context(), old, made); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(made, path); err != nil {
		t.Fatal(err)
	}
	if replaced, err := settle(t.Context(), old, path, &Options{}); !replaced || err != nil {
		t.Errorf("settle: %v, %v, want it to see that the file was replaced", replaced, err)
	}
}
