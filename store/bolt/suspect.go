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

// When the disk has failed, the page cache may hold what the disk does not, and
// still call it clean: nobody would ever write it again. A marker beside the file
// makes the next start check all values and write them into a new file.

const markerFile = ".suspect" // after the name of the store

// mark makes the marker, as far as the disk still can. A file system that has
// become read-only has lost nothing that it said it had.
func (w *writer) mark(cause error) {
	if errors.Is(cause, syscall.EROFS) {
		return
	}
	when := ""
	if w.options.Now != nil {
		when = w.options.Now().Format(time.RFC3339) + " "
	}
	path := w.path + markerFile
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return
	}
	_, err = fmt.Fprintf(f, "%s%v\nThe next start writes all data into a new file and removes this one.\n", when, cause)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		_ = dirSync(filepath.Dir(path)) // the best that can be done was done
	}
}

// copySuspect puts a copy in the place of a marked file whose lock is held, and
// reports whether it has. Damaged data is an error that wraps store.ErrCorrupt; then,
// and where there is no room, the file and its marker stay as they were.
func copySuspect(ctx context.Context, f *os.File, path string, o *Options) (copied bool, err error) {
	marker := path + markerFile
	if _, err := os.Lstat(marker); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("bolt: %w", err)
	}
	made := path + ".new-copy" // swept like whatever is being made
	if err := rewrite(ctx, f, made); err != nil {
		return false, fmt.Errorf("bolt: the disk had failed, and the data could not be copied into a new file: %w", err)
	}
	dir := filepath.Dir(path)
	err = os.Rename(made, path)
	if err == nil {
		err = dirSync(dir)
	}
	if err == nil {
		err = os.Remove(marker)
	}
	if err == nil {
		err = dirSync(dir)
	}
	if err != nil {
		return false, fmt.Errorf("bolt: the disk had failed, and the copy of the data could not take the place of the file: %w", err)
	}
	o.report(Report{Condition: Copied})
	return true, nil
}
