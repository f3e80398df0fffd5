//go:build linux

package faultfs

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

const (
	sector = 512 // bytes that a disk writes whole or not at all
	hole   = 4096

	keepSize    = 1 // FALLOC_FL_KEEP_SIZE
	permissions = 0o777
)

// file is a regular file. What follows fs is under FS.mu.
type file struct {
	fs.Inode
	fs *FS

	mode  uint32
	data  []byte       // as its users read it
	disk  []byte       // as it is durable
	dirty map[int]bool // sectors that the next sync makes durable; their size as well
}

var (
	_ fs.NodeAllocater = (*file)(nil)
	_ fs.NodeFsyncer   = (*file)(nil)
	_ fs.NodeGetattrer = (*file)(nil)
	_ fs.NodeOpener    = (*file)(nil)
	_ fs.NodeReader    = (*file)(nil)
	_ fs.NodeSetattrer = (*file)(nil)
	_ fs.NodeWriter    = (*file)(nil)
)

// Open gives no handle, so that every call comes to the file. The kernel keeps no
// page from one opening to the next.
func (f *file) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, 0, f.fs.see(func() syscall.Errno { return 0 })
}

func (f *file) Read(_ context.Context, _ fs.FileHandle, into []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	n := 0
	f.fs.wait(Read)
	errno := f.fs.do(Read, nameOf(f), func() syscall.Errno {
		n = copy(into, f.data[min(int(at), len(f.data)):])
		return 0
	})
	return fuse.ReadResultData(into[:n]), errno
}

func (f *file) Write(_ context.Context, _ fs.FileHandle, what []byte, at int64) (uint32, syscall.Errno) {
	errno := f.fs.do(Write, nameOf(f), func() syscall.Errno {
		f.grow(int(at) + len(what))
		copy(f.data[at:], what)
		f.mark(int(at), int(at)+len(what))
		return 0
	})
	if errno != 0 {
		return 0, errno
	}
	return uint32(len(what)), 0 //nolint:gosec // at most 1 MiB
}

// grow adds zeros, which have yet to get where the disk has something else.
func (f *file) grow(size int) {
	if size > len(f.data) {
		f.mark(len(f.data), min(size, len(f.disk)))
		f.data = append(f.data, make([]byte, size-len(f.data))...)
	}
}

func (f *file) mark(from, to int) {
	for s := from / sector; s*sector < to; s++ {
		f.dirty[s] = true
	}
}

func (f *file) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	op := Op(0) // a mode is durable at once, times are not kept
	size, resize := in.GetSize()
	if resize {
		op = Truncate
	}
	if errno := f.fs.do(op, nameOf(f), func() syscall.Errno {
		if mode, ok := in.GetMode(); ok {
			f.mode = mode & permissions
		}
		if resize {
			f.resize(int(size)) //nolint:gosec // it has to fit into memory
		}
		return 0
	}); errno != 0 {
		return errno
	}
	return f.Getattr(ctx, h, out)
}

func (f *file) resize(size int) {
	f.grow(size)
	f.data = f.data[:size:size] // growing again begins with zeros
	for s := range f.dirty {
		if s*sector >= size {
			delete(f.dirty, s)
		}
	}
}

func (f *file) Allocate(_ context.Context, _ fs.FileHandle, at, n uint64, mode uint32) syscall.Errno {
	return f.fs.do(Truncate, nameOf(f), func() syscall.Errno {
		if mode&^keepSize != 0 {
			return syscall.EOPNOTSUPP
		}
		if mode == 0 {
			f.grow(int(at + n)) //nolint:gosec // it has to fit into memory
		}
		return 0
	})
}

func (f *file) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return f.fs.see(func() syscall.Errno {
		out.Mode, out.Size, out.Blksize = f.mode, uint64(len(f.data)), hole
		out.Blocks = (out.Size + sector - 1) / sector
		out.Nlink = 1
		return 0
	})
}

// Fsync makes durable what was written before it; what is written meanwhile waits
// for the next one.
func (f *file) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	var size int
	var written map[int][]byte
	if errno := f.fs.do(Sync, nameOf(f), func() syscall.Errno {
		size, written = len(f.data), make(map[int][]byte, len(f.dirty))
		for s := range f.dirty {
			written[s] = bytes.Clone(part(f.data, s))
		}
		return 0
	}); errno != 0 {
		f.drop()
		return errno
	}
	f.fs.wait(Sync)
	return f.fs.see(func() syscall.Errno {
		f.disk = sized(f.disk, size)
		for s, was := range written {
			copy(part(f.disk, s), was)
			if bytes.Equal(was, part(f.data, s)) {
				delete(f.dirty, s)
			}
		}
		return 0
	})
}

// drop forgets what was to be made durable.
func (f *file) drop() {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	clear(f.dirty)
}

// part is a sector, as much of it as there is.
func part(data []byte, s int) []byte {
	return data[min(s*sector, len(data)):min((s+1)*sector, len(data))]
}

// sized returns data cut off at a size, or with zeros up to it.
func sized(data []byte, size int) []byte {
	n := min(len(data), size)
	return append(data[:n:n], make([]byte, size-n)...)
}

func (f *file) evict() {
	now := sized(bytes.Clone(f.disk), len(f.data))
	for s := range f.dirty {
		copy(part(now, s), part(f.data, s))
	}
	f.data = now
}

// settle makes a share of what is not durable so.
func (f *file) settle(share float64) {
	if rand.Float64() < share { //nolint:gosec // chance, not a secret
		f.disk = sized(f.disk, len(f.data))
	}
	for s := range f.dirty {
		if rand.Float64() < share { //nolint:gosec // chance, not a secret
			copy(part(f.disk, s), part(f.data, s))
		}
	}
}

// store writes what is durable to a file of the disk. Holes stay holes.
func (f *file) store(path string) (err error) {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, os.FileMode(f.mode))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := out.Truncate(int64(len(f.disk))); err != nil {
		return err
	}
	var zero [hole]byte
	for at := 0; at < len(f.disk); at += hole {
		page := f.disk[at:min(at+hole, len(f.disk))]
		if bytes.Equal(page, zero[:len(page)]) {
			continue
		}
		if _, err := out.WriteAt(page, int64(at)); err != nil {
			return err
		}
	}
	return nil
}
