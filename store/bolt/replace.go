package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// A Replacement is a copy of a store that is to take the place of another one, which
// nobody else can open meanwhile. Until Install nothing has changed but that there is
// one more file, which Close removes; what a crash leaves of it, the next Open of the
// store does.
type Replacement struct {
	path  string
	held  *os.File // the locked file at path; nil: there is none
	files []string // to be removed
}

// Replace copies the store at from, which nobody may be writing to, and checks the copy
// as Verify does. It is to take the place of the file at path, if there is one: that
// may be damaged, or from itself. Errors: ErrLocked, one that wraps store.ErrCorrupt
// (from is damaged), or what the system says.
func Replace(ctx context.Context, from, path string, p Progress) (*Replacement, Summary, error) {
	r := &Replacement{path: path}
	sum, err := r.copy(ctx, from, p)
	if err != nil {
		return nil, sum, errors.Join(err, r.Close())
	}
	return r, sum, nil
}

func (r *Replacement) copy(ctx context.Context, from string, p Progress) (Summary, error) {
	f, err := os.Open(from)
	if err != nil {
		return Summary{}, fmt.Errorf("bolt: the backup cannot be opened: %w", err)
	}
	defer func() { _ = f.Close() }() // nothing is written to it
	if err := r.hold(ctx); err != nil {
		return Summary{}, err
	}
	if !r.holds(f) {
		if err := lock(ctx, f, syscall.LOCK_SH, time.Second); err != nil {
			return Summary{}, err
		}
	}
	if err := sweep(r.path); err != nil {
		return Summary{}, err
	}
	r.files = append(r.files, r.Path())
	if err := rewrite(ctx, f, r.Path()); err != nil {
		return Summary{}, err
	}
	return Verify(ctx, r.Path(), p)
}

// hold takes the lock of the file that is there.
func (r *Replacement) hold(ctx context.Context) error {
	f, err := os.OpenFile(r.path, os.O_RDWR, fileMode)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("bolt: the store cannot be opened: %w", err)
	}
	r.held = f
	return lock(ctx, f, syscall.LOCK_EX, time.Second)
}

// holds reports whether f is the file that is to be replaced.
func (r *Replacement) holds(f *os.File) bool {
	if r.held == nil {
		return false
	}
	here, err := r.held.Stat()
	there, e := f.Stat()
	return err == nil && e == nil && os.SameFile(here, there)
}

// Path returns where the copy is, to be opened and changed before Install.
func (r *Replacement) Path() string { return r.path + newFile + "restored" }

// Install gives the copy the name of the store; the file that had it is kept under the
// name of kept, in the same folder. Whoever has the copy open holds its lock still. An
// error means that the file that was there is there.
func (r *Replacement) Install(kept string) error {
	if r.held == nil {
		// A server that starts at this moment must not lose what it has made.
		if err := os.Link(r.Path(), r.path); err != nil {
			return fmt.Errorf("bolt: naming the restored store: %w", err)
		}
		return r.durable()
	}
	undo := func() error { return os.Remove(kept) }
	err := os.Link(r.path, kept) // so that there is one file or the other at each moment
	if err != nil {
		undo = func() error { return os.Rename(kept, r.path) }
		err = os.Rename(r.path, kept) // file systems without hard links
	}
	if err != nil {
		return fmt.Errorf("bolt: keeping the store that was there: %w", err)
	}
	if err := os.Rename(r.Path(), r.path); err != nil {
		return errors.Join(fmt.Errorf("bolt: naming the restored store: %w", err), undo())
	}
	return r.durable()
}

func (r *Replacement) durable() error {
	if err := dirSync(filepath.Dir(r.path)); err != nil {
		return fmt.Errorf("bolt: the restored store has its name, which may not last: %w", err)
	}
	return nil
}

// Close lets go of the file that was there, and removes what was not installed.
func (r *Replacement) Close() (err error) {
	for _, name := range r.files {
		if e := os.Remove(name); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if r.held != nil {
		err = errors.Join(err, r.held.Close())
	}
	return err
}
