package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"sessiond/store"
)

const (
	fileMode = 0o600
	newFile  = ".new-" // and more, after the name of a file that is being made
)

// openFile returns the file at path, made if need be, locked against other
// processes and found sound. Of an older format there is a copy then.
func openFile(ctx context.Context, path string, o *Options) (*os.File, error) {
	if o.ReadOnly {
		return look(ctx, path, o)
	}
	if err := create(path); err != nil {
		return nil, err
	}
	for {
		f, err := os.OpenFile(path, os.O_RDWR, fileMode)
		if err != nil {
			return nil, fmt.Errorf("bolt: the store cannot be opened: %w", err)
		}
		err = lock(ctx, f, syscall.LOCK_EX, o.Lock)
		replaced := false
		if err == nil {
			replaced, err = settle(ctx, f, path, o)
		}
		if err == nil && !replaced {
			return f, nil
		}
		if _ = f.Close(); err != nil { // nothing was written to it
			return nil, err
		}
	}
}

// look is openFile for who changes nothing.
func look(ctx context.Context, path string, o *Options) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("bolt: the store cannot be opened: %w", err)
	}
	if err = lock(ctx, f, syscall.LOCK_SH, o.Lock); err == nil {
		err = sound(ctx, f, o)
	}
	if err != nil {
		_ = f.Close() // nothing was written to it
		return nil, err
	}
	return f, nil
}

// sound checks a file that is of a format which this program reads.
func sound(ctx context.Context, f *os.File, o *Options) error {
	st, err := peek(ctx, f)
	if err == nil {
		err = st.readable()
	}
	if err == nil {
		err = o.Check(ctx, f, o.Progress)
	}
	return err
}

// settle sees to what an earlier process has left and checks f, whose lock is held.
// It reports whether another file has the name now.
func settle(ctx context.Context, f *os.File, path string, o *Options) (replaced bool, err error) {
	const mayWrite = 2 // W_OK
	if err := syscall.Access(filepath.Dir(path), mayWrite); err != nil {
		return false, fmt.Errorf("bolt: the data folder cannot be written: %s: %w", filepath.Dir(path), err)
	}
	// While this process waited for the lock, its holder may have put a copy in the
	// place of the file.
	if replaced, err = isReplaced(f, path); replaced || err != nil {
		return replaced, err
	}
	st, err := peek(ctx, f)
	if err == nil {
		err = st.readable()
	}
	if err == nil {
		err = sweep(path)
	}
	if err == nil {
		err = keep(f)
	}
	if err == nil {
		err = o.Check(ctx, f, o.Progress)
	}
	if err == nil {
		replaced, err = copySuspect(ctx, f, path, o)
	}
	if err != nil || replaced || st.format >= Format {
		return replaced, err
	}
	kept, err := preserve(ctx, f, path, &st, o)
	if err == nil && o.Upgrading != nil {
		o.Upgrading(int(st.format), kept)
	}
	return false, err
}

// keep makes durable what is read from now on, and the name of the file: who wrote it
// may have been killed before he had seen to either. An end that shows is not asked for
// again, and what is acknowledged must not go with the name.
func keep(f *os.File) error {
	err := f.Sync()
	if err == nil {
		err = dirSync(filepath.Dir(f.Name()))
	}
	if err != nil {
		return fmt.Errorf("bolt: the data folder cannot be written: %w", err)
	}
	return nil
}

func isReplaced(f *os.File, path string) (bool, error) {
	open, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("bolt: %w", err)
	}
	named, err := os.Stat(path)
	if err != nil {
		return false, fmt.Errorf("bolt: the store cannot be opened: %w", err)
	}
	return !os.SameFile(open, named), nil
}

// lock takes f's lock, or says ErrLocked once it has waited long enough.
func lock(ctx context.Context, f *os.File, how int, wait time.Duration) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for rounds := max(1, int(wait/(20*time.Millisecond))); ; rounds-- {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			if err != nil {
				return fmt.Errorf("bolt: locking the store: %w", err)
			}
			return named(f)
		}
		if rounds == 0 {
			return fmt.Errorf("bolt: %s: %w", f.Name(), ErrLocked)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// named says ErrLocked if f no longer has the name that it was opened by: while its
// lock was waited for, a server has compacted it into another file.
func named(f *os.File) error {
	its, err := f.Stat()
	if err != nil {
		return fmt.Errorf("bolt: %w", err)
	}
	if found, err := os.Stat(f.Name()); err != nil || !os.SameFile(its, found) {
		return fmt.Errorf("bolt: %s: %w", f.Name(), ErrLocked)
	}
	return nil
}

// openDB hands an open, locked file to bbolt, and closes it if bbolt does not
// want it.
func openDB(f *os.File, o *bbolt.Options) (db *bbolt.DB, err error) {
	o.OpenFile = func(string, int, os.FileMode) (*os.File, error) { return f, nil }
	o.Timeout = time.Second // the lock is ours already
	if err = guard(func() error {
		db, err = bbolt.Open(f.Name(), fileMode, o)
		return err
	}); err != nil {
		_ = f.Close() // bbolt may have closed it
		return nil, fmt.Errorf("bolt: opening the store: %w", err)
	}
	return db, nil
}

// create makes the file at path if there is none. It gets its name once it is
// complete and durable, and never takes the place of another. The name is made durable
// when the file is opened.
func create(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return fmt.Errorf("bolt: the store cannot be opened: %w", err)
		}
		return nil
	}
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, filepath.Base(path)+newFile+"*")
	if err != nil {
		return fmt.Errorf("bolt: the data folder cannot be written: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // what stays is swept at the next start
	if err := initialize(tmp); err != nil {
		return fmt.Errorf("bolt: making the store: %w", err)
	}
	// Two servers that start at once must end up with one file, so the name is
	// linked, not renamed over.
	err = os.Link(tmp.Name(), path)
	if _, e := os.Stat(path); err != nil && e == nil {
		return nil // another was faster
	}
	if err != nil {
		err = os.Rename(tmp.Name(), path) // file systems without hard links
	}
	if err != nil {
		return fmt.Errorf("bolt: making the store: %w", err)
	}
	return nil
}

// initialize writes an empty store into f and closes it.
func initialize(f *os.File) error {
	db, err := openDB(f, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, NoStatistics: true})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		return writeState(b, newState())
	})
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, db.Close())
}

// sweep removes what an interrupted create has left. The caller holds the lock.
func sweep(path string) error {
	return removeFrom(filepath.Dir(path), func(name string) bool { return strings.HasPrefix(name, filepath.Base(path)+newFile) })
}

// removeFrom removes files from a folder, all whose names are of a kind.
func removeFrom(dir string, kind func(name string) bool) error {
	all, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("bolt: %w", err)
	}
	for _, e := range all {
		if !kind(e.Name()) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("bolt: the folder cannot be written: %w", err)
		}
	}
	return nil
}

// MakeFolder makes a folder for a store or its copies, and those above it, unless it is
// there: durably, since what is acknowledged in it must not go with its name.
func MakeFolder(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err = MakeFolder(filepath.Dir(dir)); err == nil {
			err = os.Mkdir(dir, 0o700)
		}
	}
	if err != nil {
		_ = dirSync(filepath.Dir(dir)) // who made it may have been killed before he came to this
		return os.MkdirAll(dir, 0o700) // it is there, or the reason why not
	}
	return dirSync(filepath.Dir(dir))
}

// dirSync makes a change of a folder's names durable.
func dirSync(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// corrupt says that the file is damaged at a place that has no key.
func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", store.ErrCorrupt, fmt.Sprintf(format, args...))
}
