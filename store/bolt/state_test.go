package bolt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"sessiond/store"
)

// files are those that programs of each format made of what sample holds. They are
// never made anew: such files lie in the data folders of users.
var files = map[string]string{
	"format1.db": "1dcba33e7b45479337d28f57a5f2c984ae77c959773d911bec06acea9f70a111",
	"format2.db": "5113b4f475be50b3ace00afc7eed591a575ffaf217639a555820563b8ba1dfae",
}

// formatFile returns a copy of the file of a format.
func formatFile(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%x", sha256.Sum256(content)); got != files[name] {
		t.Fatalf("%s was made anew: its SHA-256 is %s", name, got)
	}
	path := filepath.Join(t.TempDir(), "store.db")
	if err := os.WriteFile(path, content, fileMode); err != nil {
		t.Fatal(err)
	}
	return path
}

// Files of all formats are opened, and are of the present one then; a copy of what
// was there stays.
func TestFormats(t *testing.T) {
	if len(files) != Format {
		t.Fatalf("there are %d files of %d formats", len(files), Format)
	}
	want := content(t, sample(t))
	for n := range Format {
		n++
		t.Run(fmt.Sprint("format ", n), func(t *testing.T) {
			path := formatFile(t, fmt.Sprintf("format%d.db", n))
			if sum := verified(t, path); sum.Format != n {
				t.Errorf("it is of format %d", sum.Format)
			}
			if diff := cmp.Diff(want, content(t, path)); diff != "" {
				t.Errorf("its content (-want +got):\n%s", diff)
			}
			sum := verified(t, path)
			if sum.Format != Format || len(sum.ID) != 32 || sum.ID == fmt.Sprintf("%032x", 0) {
				t.Errorf("afterwards it is of format %d, with the id %s", sum.Format, sum.ID)
			}
			kept := path + preUpgrade + fmt.Sprint(n)
			if n == Format {
				alone(t, path)
				return
			}
			if sum := verified(t, kept); sum.Format != n {
				t.Errorf("the copy is of format %d", sum.Format)
			}
			if diff := cmp.Diff(want, content(t, kept)); diff != "" {
				t.Errorf("the copy's content (-want +got):\n%s", diff)
			}
		})
	}
}

// A file that a newer program wrote is left alone if that program says so, and else
// keeps what that program has put into its state.
func TestNewerFormats(t *testing.T) {
	path := sample(t)
	restate(t, path, func(st *state) { st.format, st.least, st.more = 9, Format, []byte("more") })
	s := open(t, path)
	commit(t, s, store.Tx{Append: [][]byte{[]byte("on")}})
	shut(t, s)
	restate(t, path, func(st *state) {
		if st.format != 9 || string(st.more) != "more" {
			t.Errorf("it is of format %d now, with %q", st.format, st.more)
		}
		st.least = Format + 1
	})
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	left := path + ".new-123"
	if err := os.WriteFile(left, nil, fileMode); err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]func() error{
		"Open":   func() error { _, err := Open(t.Context(), path, Options{}); return err },
		"Verify": func() error { _, err := Verify(t.Context(), path, nil); return err },
		"Replace": func() error {
			_, _, err := Replace(t.Context(), path, filepath.Join(t.TempDir(), "other.db"), nil)
			return err
		},
		"Salvage": func() error {
			_, err := Salvage(t.Context(), path, filepath.Join(t.TempDir(), "other.db"), nil, nil)
			return err
		},
	} {
		if err := try(); !errors.Is(err, ErrNewer) || errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrNewer", name, err)
		}
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file has changed: %v", err)
	}
	if _, err := os.Stat(left); err != nil {
		t.Errorf("another file is gone: %v", err)
	}
}

// restate changes the state of a file.
func restate(t *testing.T, path string, change func(*state)) {
	t.Helper()
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		st, err := readState(tx)
		if err != nil {
			return err
		}
		change(&st)
		return writeState(tx.Bucket(metaBucket), st)
	})
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// Wherever an upgrade is cut off, the file is of the old format or of the new one, and
// the next start ends it.
func TestUpgradeKilled(t *testing.T) {
	want := content(t, sample(t))
	moments := map[string][]int{ // and of which format it is then
		"upgrade: copied": {1}, "upgrade: checked": {1}, "upgrade: kept": {1}, "upgrade: done": {Format}, "none": {Format},
	}
	for moment, formats := range moments {
		t.Run(moment, func(t *testing.T) {
			path := formatFile(t, "format1.db")
			out, err := startChild(t, "upgrade", path, moment).Output()
			if (err == nil) != (moment == "none") {
				t.Fatalf("%v: %s", err, out)
			}
			if sum := verified(t, path); !slices.Contains(formats, sum.Format) {
				t.Errorf("it is of format %d", sum.Format)
			}
			if diff := cmp.Diff(want, content(t, path)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if sum := verified(t, path); sum.Format != Format {
				t.Errorf("afterwards it is of format %d", sum.Format)
			}
			if sum := verified(t, path+preUpgrade+"1"); sum.Format != 1 {
				t.Errorf("the copy is of format %d", sum.Format)
			}
			if left, err := filepath.Glob(path + newFile + "*"); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// upgradeUntil opens a file, and kills this process at a moment of that.
func upgradeUntil(path, moment string) error {
	s, err := Open(context.Background(), path, Options{point: func(at string) {
		if at == moment {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}})
	if err != nil {
		return err
	}
	return s.Close()
}

// Who only looks at a file of an older format leaves it and its folder as they are,
// though the server marked it when its disk failed.
func TestOnlyLooking(t *testing.T) {
	path := formatFile(t, "format1.db")
	want := content(t, sample(t))
	if err := os.WriteFile(path+markerFile, []byte("why"), fileMode); err != nil {
		t.Fatal(err)
	}
	before := folder(t, filepath.Dir(path))
	s, err := Open(t.Context(), path, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), store.Tx{Put: []store.Put{{Key: "k/a"}}}); !errors.Is(err, store.ErrStopped) {
		t.Errorf("Commit: %v, want ErrStopped", err)
	}
	if _, err := Open(t.Context(), path, Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("a second Open, to write: %v, want ErrLocked", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(before, folder(t, filepath.Dir(path))); diff != "" {
		t.Errorf("the folder has changed (-before +after):\n%s", diff)
	}
	missing := filepath.Join(t.TempDir(), "store.db")
	if _, err := Open(t.Context(), missing, Options{ReadOnly: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v, want fs.ErrNotExist", err)
	}
	if left := folder(t, filepath.Dir(missing)); len(left) > 0 {
		t.Errorf("made: %v", left)
	}
	if diff := cmp.Diff(want, content(t, path)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// folder returns the files of a folder by their names.
func folder(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// An upgrade that cannot make its copy changes nothing.
func TestUpgradeWithoutACopy(t *testing.T) {
	path := formatFile(t, "format1.db")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path+preUpgrade+"1", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path+preUpgrade+"1", "full"), nil, fileMode); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path, Options{}); err == nil || errors.Is(err, store.ErrCorrupt) {
		t.Errorf("%v, want what stood in the way", err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file has changed: %v", err)
	}
}
