//go:build linux

package faultfs

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Op is a set of kinds of calls.
type Op int

// The kinds of calls.
const (
	Write    Op = 1 << iota // one call may reach the file system as several, of up to 1 MiB
	Sync                    // fsync and fdatasync, of files and folders
	Truncate                // ftruncate and fallocate
	Create                  // mkdir as well
	Link
	Rename
	Unlink // rmdir as well
	Read   // of a file, of what the system does not have in memory

	Name   = Create | Link | Rename | Unlink
	Change = Write | Sync | Truncate | Name
)

// Call is the Nth call of some kinds from now on, counted from 1.
type Call struct {
	On  Op
	Nth int
	Of  string // only calls about a file or folder with this in its name, or in its new one
}

// Loss is what a power cut takes.
type Loss int

// Each takes only what no sync has made durable.
const (
	All  Loss = iota // all of it
	Some             // each sector of 512 bytes and each change of a size or not, as chance has it; of the changes of names the last ones
)

// FS is a mounted file system.
type FS struct {
	t           testing.TB
	backing, at string
	server      *fuse.Server
	root        *folder

	mu     sync.Mutex
	names  []change // not yet durable, oldest first
	faults []*fault
	slow   Op
	delay  time.Duration // of slow calls
	cut    bool
}

// change is a change of names, which takes effect in one piece.
type change []entry

// entry gives a name in a folder to a node, or takes it away.
type entry struct {
	in   *folder
	name string
	node fs.InodeEmbedder // nil: the name is gone
}

// A fault happens once.
type fault struct {
	on      Call // as many calls until it happens
	failing syscall.Errno
	loss    *Loss         // it is a power cut
	held    chan struct{} // it waits until this is closed
	release func()
	met     chan struct{}
}

// Mount mounts a file system at the folder at, with the files of the folder backing
// in it. What they become is held in memory, and written to backing by a power cut
// alone. Both folders have to exist. It is unmounted when the test ends.
func Mount(t testing.TB, backing, at string) *FS {
	t.Helper()
	f := &FS{t: t, backing: backing, at: at}
	f.root = &folder{fs: f, mode: 0o700, durable: map[string]fs.InodeEmbedder{}}
	if err := f.serve(); err != nil {
		t.Fatalf("mounting a file system for faults (it needs root and /dev/fuse): %v", err)
	}
	t.Cleanup(f.Unmount)
	return f
}

// Unmount takes the file system away, also from whoever still uses it. A second
// time it does nothing.
func (f *FS) Unmount() {
	f.Heal()
	_ = syscall.Unmount(f.at, syscall.MNT_DETACH) // it is not mounted the second time
	f.server.Wait()
}

// Fail makes a call fail, and returns a channel that is closed once it has. A write
// that fails writes nothing.
func (f *FS) Fail(c Call, with syscall.Errno) (met <-chan struct{}) {
	return f.add(&fault{on: c, failing: with})
}

// CutAt cuts the power in place of a call, and returns a channel that is closed once
// it has.
func (f *FS) CutAt(c Call, loss Loss) (met <-chan struct{}) {
	return f.add(&fault{on: c, failing: syscall.EIO, loss: &loss})
}

// Hold makes a call wait until it is released, and returns a channel that is closed
// once it waits. Whoever made it can be killed meanwhile, but is gone only after the
// release, with which the call is done all the same.
func (f *FS) Hold(c Call) (met <-chan struct{}, release func()) {
	held := make(chan struct{})
	release = sync.OnceFunc(func() { close(held) })
	return f.add(&fault{on: c, held: held, release: release}), release
}

// Heal ends all that was to happen and has not, and releases what is held.
func (f *FS) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, one := range f.faults {
		if one.release != nil {
			one.release()
		}
	}
	f.faults = nil
}

func (f *FS) add(one *fault) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	one.met = make(chan struct{})
	f.faults = append(f.faults, one)
	return one.met
}

// Delay makes each sync, or each read, take so long, and the others none.
func (f *FS) Delay(on Op, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slow, f.delay = on, d
}

// Cut cuts the power: every call fails from now on, and the folder backing holds
// what was durable, and what else the loss leaves. A second cut does nothing.
func (f *FS) Cut(loss Loss) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cutPower(loss)
}

// cutPower runs under mu.
func (f *FS) cutPower(loss Loss) {
	if f.cut {
		return
	}
	f.cut = true
	share := 0.0 // of what was not durable survives
	if loss == Some {
		share = rand.Float64()                        //nolint:gosec // chance, not a secret
		f.names = f.names[:rand.IntN(len(f.names)+1)] //nolint:gosec // chance, not a secret
		for _, c := range f.names {
			c.apply()
		}
	}
	if err := f.root.store(f.backing, share, map[*file]string{}); err != nil {
		f.t.Errorf("the folder behind the file system cannot be written: %v", err)
	}
}

// Evict forgets what was read and written but for what the next sync will make
// durable: from now on reading shows what a failed sync has dropped as it is on
// the disk. Whoever has the files open may still see what he saw.
func (f *FS) Evict() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.root.evict()
}

// begin counts a call about some names, and says whether it is to fail, and until
// when it waits. It runs under mu.
func (f *FS) begin(op Op, about string) (failing syscall.Errno, held <-chan struct{}) {
	for _, one := range f.faults {
		if f.cut || one.on.On&op == 0 || one.on.Nth == 0 || !strings.Contains(about, one.on.Of) {
			continue
		}
		if one.on.Nth--; one.on.Nth == 0 {
			failing, held = one.failing, one.held
			if one.loss != nil {
				f.cutPower(*one.loss)
			}
			close(one.met)
		}
	}
	return failing, held
}

// do runs a call of some kind unless it is to fail. What it is about are names.
func (f *FS) do(op Op, about string, call func() syscall.Errno) syscall.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	errno, held := f.begin(op, about)
	if held != nil {
		f.mu.Unlock()
		<-held
		f.mu.Lock()
	}
	if f.cut {
		return syscall.EIO
	}
	if errno != 0 {
		return errno
	}
	return call()
}

// see is do for what is of no kind.
func (f *FS) see(call func() syscall.Errno) syscall.Errno { return f.do(0, "", call) }

// wait makes the goroutine of a call wait as long as a slow disk would.
func (f *FS) wait(op Op) {
	f.mu.Lock()
	slow, d := f.slow&op != 0, f.delay
	f.mu.Unlock()
	if slow && d > 0 {
		<-time.After(d)
	}
}

// nameOf returns one of the names of a node, empty if it has none any more.
func nameOf(n fs.InodeEmbedder) string {
	name, _ := n.EmbeddedInode().Parent()
	return name
}

// note remembers a change of names until it is durable. It runs under mu.
func (f *FS) note(c ...entry) syscall.Errno {
	f.names = append(f.names, c)
	return 0
}

func (c change) apply() {
	for _, e := range c {
		if e.node == nil {
			delete(e.in.durable, e.name)
		} else {
			e.in.durable[e.name] = e.node
		}
	}
}

// serve mounts the file system.
func (f *FS) serve() (err error) {
	f.server, err = fs.Mount(f.at, f.root, &fs.Options{
		MountOptions: fuse.MountOptions{
			DirectMountStrict: true, DisableXAttrs: true, MaxWrite: 1 << 20, FsName: "faultfs", Name: "faultfs",
		},
		NullPermissions: true,
	})
	if err != nil {
		return err
	}
	if err = f.root.load(f.t.Context(), f.backing); err != nil {
		f.Unmount()
	}
	return err
}

// load reads a folder. Nobody uses the file system yet.
func (d *folder) load(ctx context.Context, from string) error {
	all, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, one := range all {
		info, err := one.Info()
		if err != nil {
			return err
		}
		path, mode := filepath.Join(from, one.Name()), uint32(info.Mode().Perm())
		var node fs.InodeEmbedder
		if one.IsDir() {
			below := d.newFolder(ctx, mode)
			err, node = below.load(ctx, path), below
		} else {
			var data []byte
			data, err = os.ReadFile(path)
			node = d.newFile(ctx, mode, data)
		}
		if err != nil {
			return err
		}
		d.AddChild(one.Name(), node.EmbeddedInode(), false)
		d.durable[one.Name()] = node
	}
	return nil
}
