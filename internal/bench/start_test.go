//go:build linux && bench

package bench

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"sessiond/internal/cli"
)

// measureStart starts the server on the data several times, and leaves it
// running.
func measureStart(t *testing.T, b builder, d *data, r *report) *child {
	t.Helper()
	nothing := filepath.Join(t.TempDir(), "empty")
	for range 2 { // the first start makes a folder and hashes a password, which leaves traces in memory
		empty, _ := b.serve(t, nothing)
		r.emptyBytes = empty.anonymous(t)
		empty.stop(t)
	}

	info, err := os.Stat(filepath.Join(d.dir, cli.DataFile))
	if err != nil {
		t.Fatal(err)
	}
	r.fileBytes = info.Size()

	const starts = 3
	var cold, warm []time.Duration
	for range starts {
		forget(t, filepath.Join(d.dir, cli.DataFile))
		c, took := b.serve(t, d.dir)
		cold = append(cold, took)
		c.stop(t)
	}
	for n := range starts {
		c, took := b.serve(t, d.dir)
		warm = append(warm, took)
		if n == starts-1 {
			r.fullBytes = c.anonymous(t)
			r.cold, r.warm = median(cold), median(warm)
			return c
		}
		c.stop(t)
	}
	return nil
}

// forget drops a file from the page cache, so that it is read from the disk
// again. What lies below the kernel may remember it still.
func forget(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	const dontNeed = 4 // POSIX_FADV_DONTNEED
	if _, _, errno := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, dontNeed, 0, 0); errno != 0 {
		t.Fatalf("fadvise: %v", errno)
	}
}

// median returns the middle one of some values, for an even number of them the
// lower.
func median[T interface{ ~int64 | ~float64 }](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)-1)/2]
}
