//go:build linux

package faultfs

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

const noReplace = 1 // RENAME_NOREPLACE

// folder is a folder. The names that its users see are the children of its Inode.
type folder struct {
	fs.Inode
	fs   *FS
	mode uint32

	durable map[string]fs.InodeEmbedder // under FS.mu
}

var (
	_ fs.NodeCreater   = (*folder)(nil)
	_ fs.NodeFsyncer   = (*folder)(nil)
	_ fs.NodeGetattrer = (*folder)(nil)
	_ fs.NodeSetattrer = (*folder)(nil)
	_ fs.NodeLinker    = (*folder)(nil)
	_ fs.NodeMkdirer   = (*folder)(nil)
	_ fs.NodeRenamer   = (*folder)(nil)
	_ fs.NodeRmdirer   = (*folder)(nil)
	_ fs.NodeStatfser  = (*folder)(nil)
	_ fs.NodeUnlinker  = (*folder)(nil)
)

// newFolder and newFile make what is below d. It is kept until the file system is
// gone: whoever lost its name may still have it open, or get it back by a power cut.
func (d *folder) newFolder(ctx context.Context, mode uint32) *folder {
	below := &folder{fs: d.fs, mode: mode & permissions, durable: map[string]fs.InodeEmbedder{}}
	d.NewPersistentInode(ctx, below, fs.StableAttr{Mode: fuse.S_IFDIR})
	return below
}

func (d *folder) newFile(ctx context.Context, mode uint32, data []byte) *file {
	f := &file{fs: d.fs, mode: mode & permissions, data: data, disk: bytes.Clone(data), dirty: map[int]bool{}}
	d.NewPersistentInode(ctx, f, fs.StableAttr{Mode: fuse.S_IFREG})
	return f
}

func (d *folder) Create(ctx context.Context, name string, _, mode uint32, _ *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	var made *file
	errno := d.fs.do(Create, name, func() syscall.Errno {
		if d.GetChild(name) != nil {
			return syscall.EEXIST
		}
		made = d.newFile(ctx, mode, nil)
		return d.fs.note(entry{d, name, made})
	})
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return &made.Inode, nil, 0, 0
}

func (d *folder) Mkdir(ctx context.Context, name string, mode uint32, _ *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	var made *folder
	errno := d.fs.do(Create, name, func() syscall.Errno {
		made = d.newFolder(ctx, mode)
		return d.fs.note(entry{d, name, made})
	})
	if errno != 0 {
		return nil, errno
	}
	return &made.Inode, 0
}

func (d *folder) Link(_ context.Context, target fs.InodeEmbedder, name string, _ *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	errno := d.fs.do(Link, nameOf(target)+" "+name, func() syscall.Errno { return d.fs.note(entry{d, name, target}) })
	if errno != 0 {
		return nil, errno
	}
	return target.EmbeddedInode(), 0
}

func (d *folder) Rename(_ context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	return d.fs.do(Rename, name+" "+newName, func() syscall.Errno {
		into, ok := to.(*folder)
		node := d.GetChild(name)
		switch {
		case !ok || flags&^noReplace != 0:
			return syscall.EINVAL
		case node == nil:
			return syscall.ENOENT
		case flags != 0 && into.GetChild(newName) != nil:
			return syscall.EEXIST
		}
		return d.fs.note(entry{d, name, nil}, entry{into, newName, node.Operations()})
	})
}

func (d *folder) Unlink(_ context.Context, name string) syscall.Errno {
	return d.fs.do(Unlink, name, func() syscall.Errno { return d.fs.note(entry{d, name, nil}) })
}

func (d *folder) Rmdir(_ context.Context, name string) syscall.Errno {
	return d.fs.do(Unlink, name, func() syscall.Errno {
		if below := d.GetChild(name); below != nil && len(below.Children()) > 0 {
			return syscall.ENOTEMPTY
		}
		return d.fs.note(entry{d, name, nil})
	})
}

// Fsync makes the changes of the folder's names durable. One that fails drops none
// of them: the next sync may still make them so.
func (d *folder) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	if errno := d.fs.do(Sync, nameOf(d), func() syscall.Errno { return 0 }); errno != 0 {
		return errno
	}
	d.fs.wait(Sync)
	return d.fs.see(func() syscall.Errno {
		var others []change
		for _, c := range d.fs.names {
			if c[0].in == d || c[len(c)-1].in == d {
				c.apply()
			} else {
				others = append(others, c)
			}
		}
		d.fs.names = others
		return 0
	})
}

func (d *folder) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return d.fs.see(func() syscall.Errno {
		out.Mode = d.mode
		return 0
	})
}

// Setattr changes the mode, which is durable at once. Times are not kept.
func (d *folder) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return d.fs.see(func() syscall.Errno {
		if mode, ok := in.GetMode(); ok {
			d.mode = mode & permissions
		}
		out.Mode = d.mode
		return 0
	})
}

// Statfs says that there is plenty of space.
func (d *folder) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	const block, blocks = 4096, 1 << 20
	out.Bsize, out.Frsize, out.NameLen = block, block, 255
	out.Blocks, out.Bfree, out.Bavail = blocks, blocks, blocks
	out.Files, out.Ffree = blocks, blocks
	return 0
}

// store makes a folder of the disk what is durable of d, and a share of what is
// not. Of each file it keeps where it is.
func (d *folder) store(to string, share float64, stored map[*file]string) error {
	old, err := os.ReadDir(to)
	if err != nil {
		return err
	}
	for _, one := range old {
		err = errors.Join(err, os.RemoveAll(filepath.Join(to, one.Name())))
	}
	for name, node := range d.durable {
		path := filepath.Join(to, name)
		switch node := node.(type) {
		case *file:
			if first, ok := stored[node]; ok {
				err = errors.Join(err, os.Link(first, path))
				continue
			}
			stored[node] = path
			node.settle(share)
			err = errors.Join(err, node.store(path))
		case *folder:
			if e := os.Mkdir(path, os.FileMode(node.mode)); e != nil {
				return e
			}
			err = errors.Join(err, node.store(path, share, stored))
		}
	}
	return err
}

func (d *folder) evict() {
	for _, node := range d.Children() {
		switch node := node.Operations().(type) {
		case *file:
			node.evict()
		case *folder:
			node.evict()
		}
	}
}
