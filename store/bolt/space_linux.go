package bolt

import (
	"errors"
	"os"
	"syscall"
)

// fileSystem returns how large the file system of a folder is, and how many bytes
// of it are free for whoever is not root; ok is false where it does not say.
func fileSystem(dir string) (size, free int64, ok bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil || st.Blocks == 0 {
		return 0, 0, false
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize, true //nolint:gosec // sizes
}

// allocate has the file system set space aside for all bytes of f up to size.
func allocate(f *os.File, size int64) error {
	for {
		err := syscall.Fallocate(int(f.Fd()), 0, 0, size)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// allocated returns how many bytes of the file system a file really takes.
func allocated(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

// writeOut writes what of f waits in memory to the disk, which may still hold it in a
// cache. Unlike a sync it makes nobody else's wait for the journal of the file system.
func writeOut(f *os.File) error {
	const all = 1 | 2 | 4 // SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE and _WAIT_AFTER
	for {
		err := syscall.SyncFileRange(int(f.Fd()), 0, 0, all)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.ESPIPE):
			return f.Sync()
		default:
			return err
		}
	}
}
