package bolt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"sessiond/store"
)

// Compact rewrites the store, which goes on meanwhile, into a new file without what
// the present one no longer needs, and lets it take the place of that one. Commits
// wait only for a moment, at the end; who reads just then finishes in the old file. It
// returns the sizes of the two, in bytes. However it ends, and at whatever moment the
// process is killed, the folder has one of the two files, with every commit that was
// acknowledged. No other process gets hold of the new one. Errors: *NoRoomError,
// also if others take the room meanwhile; store.ErrFull, where it is a quota that they
// took; store.ErrStopped; ErrCorrupt if a value is damaged; ctx's; or what the system
// says.
func (s *Store) Compact(ctx context.Context, o CopyOptions) (before, after int64, err error) {
	ctx, cancel := s.deadline(ctx, o)
	defer cancel()
	draft := s.path + draftFile
	if err := os.Remove(draft); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, 0, fmt.Errorf("bolt: the data folder cannot be written: %w", err)
	}
	before, _ = s.Size()
	c, err := newCopier(ctx, s, draft, o)
	if err != nil {
		return before, 0, err
	}
	defer c.close()
	Give(draft)
	_, err = c.copy(ctx, false)
	if err == nil {
		err = c.verify(ctx)
	}
	if err == nil {
		err = c.guard(ctx, func() error { return c.near(ctx) })
	}
	var old *bbolt.DB
	if err == nil {
		err = s.errand(ctx, func(w *writer) error {
			old, err = w.change(c)
			return err
		})
	}
	if old == nil {
		c.to.abandon()
		return before, 0, err
	}
	_ = old.Close() // waits for its readers; nothing of it is needed any more
	after, _ = s.Size()
	return before, after, err
}

// change completes a copy and goes on with it. It returns the file of before, nil if
// that is still the one in use.
func (w *writer) change(c *copier) (*bbolt.DB, error) {
	c.leave()
	if err := c.catchUp(); err != nil {
		return nil, err
	}
	if err := c.to.settle(w.state); err != nil {
		return nil, err
	}
	w.point("before the rename")
	if err := os.Rename(c.to.file.Name(), w.path); err != nil {
		return nil, fmt.Errorf("bolt: giving the new file its name: %w", err)
	}
	w.point("after the rename")
	c.to.db.NoSync, c.to.db.NoGrowSync = false, false
	old := w.db.Swap(c.to.db)
	w.file = c.to.file
	if err := dirSync(filepath.Dir(w.path)); err != nil {
		// A crash may bring the old file back, so nothing may be acknowledged that
		// only the new one holds.
		return old, w.stop(err, store.ErrStopped)
	}
	w.point("changed")
	return old, nil
}

// point lets tests stop at a place where a crash would be hard to survive.
func (w *writer) point(name string) {
	w.options.at(name)
}
