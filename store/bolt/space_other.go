//go:build !linux

package bolt

import (
	"errors"
	"os"
)

// fileSystem does not know.
func fileSystem(string) (size, free int64, ok bool) { return 0, 0, false }

// allocate cannot set space aside.
func allocate(*os.File, int64) error { return errors.ErrUnsupported }

func allocated(info os.FileInfo) int64 { return info.Size() }

// writeOut writes what of f waits in memory to the disk.
func writeOut(f *os.File) error { return f.Sync() }
