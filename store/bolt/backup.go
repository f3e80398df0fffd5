package bolt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sessiond/store"
)

// ErrExists means that there is a file of that name, which was left as it is.
var ErrExists = errors.New("bolt: there is a file of that name")

// reserve is what a copy leaves free on its disk, in bytes: the store has to grow.
const reserve = 32 << 20

// Backup writes a copy of the store, which goes on meanwhile, to a new file at path;
// its folder must exist. The copy is what the store was at one moment during the
// call: it holds every commit that was acknowledged before. It has the name once it
// is complete, durable and verified; without that there is no file at path. The
// summary has its size, revision and head; values are not counted. Errors: ErrExists;
// those of Compact. One that takes far longer than it should is given up.
func (s *Store) Backup(ctx context.Context, path string, o CopyOptions) (Summary, error) {
	ctx, cancel := s.deadline(ctx, o)
	defer cancel()
	if _, err := os.Lstat(path); err == nil {
		return Summary{}, ErrExists
	}
	draft := path + draftFile
	if err := os.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Summary{}, fmt.Errorf("bolt: the folder of the copy cannot be written: %w", err)
	}
	c, err := newCopier(ctx, s, draft, o)
	if err != nil {
		return Summary{}, err
	}
	st, err := c.copy(ctx, true)
	c.close()
	if err == nil {
		err = c.verify(ctx)
	}
	sum := Summary{Format: int(st.format), Rev: st.rev, Head: st.head}
	if err == nil {
		sum.Size, err = c.to.file.Seek(0, io.SeekEnd)
	}
	if err != nil {
		c.to.abandon()
		return Summary{}, err
	}
	if err := c.to.db.Close(); err != nil {
		return Summary{}, errors.Join(writing(err), os.Remove(draft))
	}
	if o.Report != nil {
		o.Report(uint64(sum.Size), uint64(sum.Size)) //nolint:gosec // sizes
	}
	return sum, publish(draft, path)
}

// publish gives a draft that is durable its name, which nothing else must have.
func publish(draft, path string) error {
	defer func() { _ = os.Remove(draft) }() // what stays is swept
	err := os.Link(draft, path)
	if errors.Is(err, fs.ErrExist) {
		return ErrExists
	}
	if err != nil {
		err = os.Rename(draft, path) // file systems without hard links
	}
	if err == nil {
		err = dirSync(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("bolt: giving the copy its name: %w", err)
	}
	return nil
}

// draftFile ends the name of a copy that is not complete; sweep knows it.
const draftFile = ".new-copy"

// SweepBackups removes what backups that were cut short have left in their folder.
// None may be under way there.
func SweepBackups(dir string) error {
	return removeFrom(dir, func(name string) bool { return strings.HasSuffix(name, draftFile) })
}

// deadline gives a copy ten minutes, and twice what its rate makes it take.
func (s *Store) deadline(ctx context.Context, o CopyOptions) (context.Context, context.CancelFunc) {
	const slowest = 64 << 20 // bytes a second, of a disk without a rate
	rate := o.Rate
	if rate <= 0 || rate > slowest {
		rate = slowest
	}
	size, _ := s.Size()
	return context.WithTimeoutCause(ctx, 10*time.Minute+2*time.Duration(size/rate)*time.Second, fmt.Errorf("%w: the copy took far longer than it should", store.ErrBusy))
}
