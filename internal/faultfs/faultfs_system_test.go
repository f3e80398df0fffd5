//go:build linux && system

package faultfs_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sessiond/internal/faultfs"
)

// Whoever says that something is kept before it is durable is found out, and who
// does it right is not.
func TestSystemWritersAreJudged(t *testing.T) {
	for _, tt := range []struct {
		role   string
		honest bool
	}{
		{"syncs the file and the folder", true},
		{"syncs the file and the folder, then appends to it", true},
		{"acknowledges before the file is synced", false},
		{"forgets to sync the folder", false},
		{"forgets to sync what it appends", false},
		{"renames before the file is synced", false},
	} {
		for _, loss := range []faultfs.Loss{faultfs.All, faultfs.Some} {
			t.Run(fmt.Sprint(tt.role, "/", loss), func(t *testing.T) {
				lost := 0
				for round := 0; round < 4 && (tt.honest || lost == 0); round++ {
					lost += lostBy(t, tt.role, loss, 40+7*round)
				}
				if honest := lost == 0; honest != tt.honest {
					t.Errorf("%d acknowledged records were lost", lost)
				}
			})
		}
	}
}

// lostBy cuts the power of a writer once it has acknowledged so many records, and
// counts those that are gone.
func lostBy(t *testing.T, role string, loss faultfs.Loss, after int) (lost int) {
	t.Helper()
	f, backing, at := mount(t)
	f.Delay(faultfs.Sync, time.Millisecond)
	cmd := writer(t, role, at)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acknowledged []string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if acknowledged = append(acknowledged, lines.Text()); len(acknowledged) == after {
			f.Cut(loss)
		}
	}
	_ = cmd.Wait() // it fails once the power is cut
	if len(acknowledged) < after {
		t.Fatalf("only %d records were acknowledged", len(acknowledged))
	}
	for _, name := range acknowledged {
		if text, err := os.ReadFile(filepath.Join(backing, name)); err != nil || !bytes.HasPrefix(text, record(name)) {
			lost++
		}
	}
	f.Unmount()
	return lost
}

func record(name string) []byte { return bytes.Repeat([]byte(name), 300) }

// TestMain is a writer if it is told so.
func TestMain(m *testing.M) {
	role, at := os.Getenv("FAULTFS_ROLE"), os.Getenv("FAULTFS_AT")
	if role == "" {
		os.Exit(m.Run())
	}
	err := maps(at)
	if role != "maps a file" {
		for n := 0; err == nil; n++ {
			err = write(role, at, fmt.Sprintf("%04d", n))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func writer(t *testing.T, role, at string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "FAULTFS_ROLE="+role, "FAULTFS_AT="+at)
	return cmd
}

// write keeps a record in a file of its name, as well as its role has it.
func write(role, at, name string) (err error) {
	is := func(part string) bool { return strings.Contains(role, part) }
	acknowledge := func() { _, _ = os.Stdout.WriteString(name + "\n") } // nobody listens any more
	f, err := os.Create(filepath.Join(at, name+".new"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	text := record(name)
	if is("append") {
		text = text[:len(text)/3]
	}
	if _, err := f.Write(text); err != nil {
		return err
	}
	if is("acknowledges before") {
		acknowledge()
	}
	if is("renames before") {
		err = errors.Join(os.Rename(f.Name(), filepath.Join(at, name)), sync(at))
		acknowledge()
		return errors.Join(err, f.Sync())
	}
	if err := errors.Join(f.Sync(), os.Rename(f.Name(), filepath.Join(at, name))); err != nil {
		return err
	}
	if !is("forgets to sync the folder") {
		if err := sync(at); err != nil {
			return err
		}
	}
	if is("append") {
		if _, err := f.Write(record(name)[len(text):]); err != nil {
			return err
		}
		if !is("forgets") {
			if err := f.Sync(); err != nil {
				return err
			}
		}
	}
	if !is("acknowledges before") {
		acknowledge()
	}
	return nil
}

func sync(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// What is written to a file shows in a map of it.
func TestSystemMappedFiles(t *testing.T) {
	_, _, at := mount(t)
	if out, err := writer(t, "maps a file", at).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// maps writes to a file that it has mapped.
func maps(at string) (err error) {
	f, err := os.Create(filepath.Join(at, "mapped"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	const size = 1 << 20
	m, err := syscall.Mmap(int(f.Fd()), 0, 4*size, syscall.PROT_READ, syscall.MAP_SHARED) // most of it is beyond its end
	if err != nil {
		return err
	}
	for n := range 4 {
		if err := f.Truncate(int64(size * (n + 1))); err != nil {
			return err
		}
		for at := n * size; at < (n+1)*size; at += 100_000 {
			text := fmt.Appendf(nil, "%d, %d", n, at)
			if _, err := f.WriteAt(text, int64(at)); err != nil {
				return err
			}
			if !bytes.Equal(m[at:at+len(text)], text) {
				return fmt.Errorf("at %d the map shows %q", at, m[at:at+len(text)])
			}
		}
	}
	return syscall.Munmap(m)
}

// What a cut without survivors leaves.
func TestSystemWhatIsDurable(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, f *faultfs.FS, at string)
		want map[string]string // the files and what they begin with; of old there is aaa from the start
	}{
		{"nothing", func(*testing.T, *faultfs.FS, string) {}, map[string]string{"old": "aaa"}},
		{"written", func(t *testing.T, _ *faultfs.FS, at string) {
			overwrite(t, at, "b", 0)
		}, map[string]string{"old": "aaa"}},
		{"written and synced", func(t *testing.T, _ *faultfs.FS, at string) {
			overwrite(t, at, "b", 1)
		}, map[string]string{"old": "baa"}},
		{"longer", func(t *testing.T, _ *faultfs.FS, at string) {
			overwrite(t, at, "bbbbb", 0)
		}, map[string]string{"old": "aaa"}},
		{"shorter, synced", func(t *testing.T, _ *faultfs.FS, at string) {
			resize(t, at, 1, true)
		}, map[string]string{"old": "a"}},
		{"shorter", func(t *testing.T, _ *faultfs.FS, at string) {
			resize(t, at, 1, false)
		}, map[string]string{"old": "aaa"}},
		{"shorter and longer again, synced", func(t *testing.T, _ *faultfs.FS, at string) {
			resize(t, at, 1, false)
			resize(t, at, 3, true)
		}, map[string]string{"old": "a\x00\x00"}},
		{"a sync failed", func(t *testing.T, f *faultfs.FS, at string) {
			f.Fail(faultfs.Call{On: faultfs.Sync, Nth: 1}, syscall.EIO)
			overwrite(t, at, "b", -1)
			if text, err := os.ReadFile(filepath.Join(at, "old")); err != nil || string(text) != "baa" {
				t.Errorf("it reads %q, %v", text, err)
			}
		}, map[string]string{"old": "aaa"}},
		{"a sync failed, the next did not", func(t *testing.T, f *faultfs.FS, at string) {
			f.Fail(faultfs.Call{On: faultfs.Sync, Nth: 1}, syscall.EIO)
			overwrite(t, at, "b", -1)
			f.Evict()
			if text, err := os.ReadFile(filepath.Join(at, "old")); err != nil || string(text) != "aaa" {
				t.Errorf("once forgotten it reads %q, %v", text, err)
			}
			overwrite(t, at, "", 1)
		}, map[string]string{"old": "aaa"}},
		{"a sync failed, and it was written again", func(t *testing.T, f *faultfs.FS, at string) {
			f.Fail(faultfs.Call{On: faultfs.Sync, Nth: 1}, syscall.ENOSPC)
			overwrite(t, at, "b", -1)
			overwrite(t, at, "c", 1)
		}, map[string]string{"old": "caa"}},
		{"the second write failed", func(t *testing.T, f *faultfs.FS, at string) {
			met := f.Fail(faultfs.Call{On: faultfs.Write, Nth: 2}, syscall.ENOSPC)
			overwrite(t, at, "b", 1)
			if err := os.WriteFile(filepath.Join(at, "old"), []byte("ccc"), 0); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%v, want no space", err)
			}
			<-met
		}, map[string]string{"old": "baa"}}, // not the cutting off before the write either
		{"what is about another file does not count", func(t *testing.T, f *faultfs.FS, at string) {
			f.Fail(faultfs.Call{On: faultfs.Change, Nth: 1, Of: "new"}, syscall.EIO)
			overwrite(t, at, "b", 1)
			if _, err := os.Create(filepath.Join(at, "new")); !errors.Is(err, syscall.EIO) {
				t.Errorf("%v, want an I/O error", err)
			}
			create(t, at, "newer")
			must(t, sync(at))
		}, map[string]string{"old": "baa", "newer": "newer"}},
		{"a removal failed, the creation before it did not", func(t *testing.T, f *faultfs.FS, at string) {
			f.Fail(faultfs.Call{On: faultfs.Unlink, Nth: 1}, syscall.EIO)
			create(t, at, "new")
			if err := os.Remove(filepath.Join(at, "old")); !errors.Is(err, syscall.EIO) {
				t.Errorf("%v, want an I/O error", err)
			}
			must(t, sync(at))
		}, map[string]string{"old": "aaa", "new": "new"}},
		{"a write was held", func(t *testing.T, f *faultfs.FS, at string) {
			met, release := f.Hold(faultfs.Call{On: faultfs.Write, Nth: 1})
			written := make(chan struct{})
			go func() {
				defer close(written)
				overwrite(t, at, "b", 1)
			}()
			<-met
			must(t, sync(at)) // others go on
			select {
			case <-written:
				t.Error("it did not wait")
			default:
			}
			release()
			<-written
		}, map[string]string{"old": "baa"}},
		{"a resize failed", func(t *testing.T, f *faultfs.FS, at string) {
			f.Fail(faultfs.Call{On: faultfs.Truncate, Nth: 1}, syscall.EIO)
			if err := os.Truncate(filepath.Join(at, "old"), 1); !errors.Is(err, syscall.EIO) {
				t.Errorf("%v, want an I/O error", err)
			}
			overwrite(t, at, "", 1)
		}, map[string]string{"old": "aaa"}},
		{"the power went in place of a sync", func(t *testing.T, f *faultfs.FS, at string) {
			f.CutAt(faultfs.Call{On: faultfs.Sync, Nth: 2}, faultfs.All)
			overwrite(t, at, "b", 1)
			overwrite(t, at, "c", -1)
			if err := os.WriteFile(filepath.Join(at, "new"), nil, 0o600); !errors.Is(err, syscall.EIO) {
				t.Errorf("without power: %v, want an I/O error", err)
			}
		}, map[string]string{"old": "baa"}},
		{"created and synced", func(t *testing.T, _ *faultfs.FS, at string) {
			create(t, at, "new")
		}, map[string]string{"old": "aaa"}},
		{"created and synced, the folder too", func(t *testing.T, _ *faultfs.FS, at string) {
			create(t, at, "new")
			must(t, sync(at))
		}, map[string]string{"old": "aaa", "new": "new"}},
		{"renamed", func(t *testing.T, _ *faultfs.FS, at string) {
			create(t, at, "new")
			must(t, sync(at))
			must(t, os.Rename(filepath.Join(at, "new"), filepath.Join(at, "old")))
		}, map[string]string{"old": "aaa", "new": "new"}},
		{"renamed, the folder synced", func(t *testing.T, _ *faultfs.FS, at string) {
			create(t, at, "new")
			must(t, os.Rename(filepath.Join(at, "new"), filepath.Join(at, "old")))
			must(t, sync(at))
		}, map[string]string{"old": "new"}},
		{"linked and removed, the folder synced between", func(t *testing.T, _ *faultfs.FS, at string) {
			create(t, at, "new")
			must(t, os.Link(filepath.Join(at, "new"), filepath.Join(at, "other")))
			must(t, sync(at))
			must(t, os.Remove(filepath.Join(at, "new")))
			must(t, os.Remove(filepath.Join(at, "old")))
		}, map[string]string{"old": "aaa", "new": "new", "other": "new"}},
		{"in a folder of its own", func(t *testing.T, _ *faultfs.FS, at string) {
			below := filepath.Join(at, "below")
			must(t, os.Mkdir(below, 0o700))
			create(t, below, "new")
			must(t, sync(below))
			must(t, sync(at))
			must(t, os.Rename(filepath.Join(below, "new"), filepath.Join(at, "old")))
			must(t, sync(at))
		}, map[string]string{"old": "new", "below": ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, backing, at := mount(t)
			tt.do(t, f, at)
			f.Cut(faultfs.All)
			f.Unmount()
			f = faultfs.Mount(t, backing, at) // the power is back
			names, err := os.ReadDir(at)
			must(t, err)
			for _, one := range names {
				text, err := os.ReadFile(filepath.Join(at, one.Name()))
				if want, ok := tt.want[one.Name()]; !ok || string(text) != want || err != nil && !one.IsDir() {
					t.Errorf("%s is %q, %v", one.Name(), text, err)
				}
			}
			if len(names) != len(tt.want) {
				t.Errorf("%d names, want %d", len(names), len(tt.want))
			}
			f.Unmount()
		})
	}
}

// Where a cut leaves some of what was not durable, any part of it may be left, and
// nothing else.
func TestSystemTornWrites(t *testing.T) {
	const sectors, size, rounds = 8, 8 * 512, 40
	kept, renamed, longer := 0, 0, 0
	for range rounds {
		f, backing, at := mount(t)
		must(t, os.WriteFile(filepath.Join(at, "torn"), bytes.Repeat([]byte{1}, size), 0o600))
		create(t, at, "before")
		file, err := os.OpenFile(filepath.Join(at, "torn"), os.O_RDWR, 0)
		must(t, err)
		must(t, errors.Join(file.Sync(), sync(at)))
		_, err = file.WriteAt(bytes.Repeat([]byte{2}, size+100), 0)
		must(t, errors.Join(err, os.Rename(filepath.Join(at, "before"), filepath.Join(at, "after")), file.Close()))
		f.Cut(faultfs.Some)
		f.Unmount()
		text, err := os.ReadFile(filepath.Join(backing, "torn"))
		must(t, err)
		for n := range sectors {
			part := text[n*512 : (n+1)*512]
			if part[0] == 2 {
				kept++
			}
			if bytes.Count(part, part[:1]) != len(part) {
				t.Errorf("sector %d is torn itself", n)
			}
		}
		if len(text) > size {
			longer++
		}
		_, before := os.Stat(filepath.Join(backing, "before"))
		_, after := os.Stat(filepath.Join(backing, "after"))
		if errors.Is(before, fs.ErrNotExist) {
			renamed++
		}
		if (before == nil) == (after == nil) {
			t.Errorf("before: %v; after: %v", before, after)
		}
	}
	if kept == 0 || kept == rounds*sectors || renamed == 0 || renamed == rounds || longer == 0 || longer == rounds {
		t.Errorf("of %d times %d sectors %d were kept, %d times the new name, %d times the new length", rounds, sectors, kept, renamed, longer)
	}
}

// mount mounts a file system with the file old, aaa.
func mount(t *testing.T) (f *faultfs.FS, backing, at string) {
	t.Helper()
	backing, at = t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(backing, "old"), []byte("aaa"), 0o600))
	return faultfs.Mount(t, backing, at), backing, at
}

func create(t *testing.T, at, name string) {
	t.Helper()
	f, err := os.Create(filepath.Join(at, name))
	must(t, err)
	_, err = f.WriteString(name)
	must(t, errors.Join(err, f.Sync(), f.Close()))
}

// overwrite writes over the beginning of old, and syncs it, or expects that to fail.
func overwrite(t *testing.T, at, text string, sync int) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(at, "old"), os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte(text), 0)
	must(t, err)
	switch sync {
	case 1:
		must(t, f.Sync())
	case -1:
		if f.Sync() == nil {
			t.Error("the sync did not fail")
		}
	}
	must(t, f.Close())
}

func resize(t *testing.T, at string, size int64, sync bool) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(at, "old"), os.O_WRONLY, 0)
	must(t, err)
	must(t, f.Truncate(size))
	if sync {
		must(t, f.Sync())
	}
	must(t, f.Close())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
