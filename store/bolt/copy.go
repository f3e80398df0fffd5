package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"go.etcd.io/bbolt"

	"sessiond/store"
)

// rewrite makes a new, compact file at path of all values that from holds, once it
// has checked that they are sound and that none is missing. The new file is
// durable, but for its name. Where anything is wrong there is none, and from is
// as it was.
func rewrite(ctx context.Context, from *os.File, path string) error {
	b, err := newBuilder(path, Options{})
	if err != nil {
		return err
	}
	Give(path)
	st, err := take(ctx, from, func(kind string, name, value []byte) error {
		if _, _, err := unseal(kind, name, value); err != nil || kind == metaKind {
			return err
		}
		return b.add(kind, name, value)
	})
	if err != nil {
		b.abandon()
		return err
	}
	return b.finish(st)
}

// Give gives a new file or folder to whom the folder belongs to that it is in, as far as
// that is possible: root may work on the data of a server that has fewer rights, and has
// to open it again.
func Give(path string) {
	info, err := os.Stat(filepath.Dir(path))
	if err != nil || os.Geteuid() != 0 {
		return
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		_ = os.Lchown(path, int(owner.Uid), int(owner.Gid)) // a root without that right leaves it
	}
}

// A builder fills a new file with stored values. It is quickest, and the file
// smallest, when they come kind by kind and in order. The file is locked against
// other processes until it is closed.
type builder struct {
	db    *bbolt.DB
	file  *os.File
	found census // of what was added so far

	tx      *bbolt.Tx // nil: none is open
	buckets []bucket
	memory  []byte // of the values in tx, which bbolt reads until it ends
	size    int    // bytes in tx
}

// newBuilder makes the file at path, which must not exist.
func newBuilder(path string, o Options) (*builder, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return nil, writing(err)
	}
	how := o.bbolt()
	how.NoSync, how.NoGrowSync = true, true // commit does it
	db, err := openDB(f, how)
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return &builder{db: db, file: f}, nil
}

// add puts a stored value, as it is; it may take the place of another. Its bytes may
// change afterwards.
func (b *builder) add(kind string, name, value []byte) error {
	at, err := b.bucket(kind, true)
	if err != nil {
		return err
	}
	if bytes.Compare(name, at.last) > 0 {
		at.last = append(at.last[:0], name...)
	} else if old := at.look(name); old != nil {
		b.found.remove(old)
	}
	value = b.keep(value)
	if err := at.b.Put(name, value); err != nil {
		return writing(err)
	}
	b.found.add(value)
	return b.grown(len(name) + len(value))
}

// remove takes a value out again, if there is one.
func (b *builder) remove(kind string, name []byte) error {
	at, err := b.bucket(kind, false)
	if err != nil {
		return err
	}
	old := at.look(name)
	if old == nil {
		return nil
	}
	b.found.remove(old)
	if err := at.b.Delete(name); err != nil {
		return writing(err)
	}
	return b.grown(len(name))
}

// rev returns the revision of a value, 0 if there is none.
func (b *builder) rev(kind string, name []byte) (store.Rev, error) {
	at, err := b.bucket(kind, false)
	if err != nil {
		return 0, err
	}
	v := at.look(name)
	if v == nil {
		return 0, nil
	}
	rev, _, err := unseal(kind, name, v)
	return rev, err
}

// bucket returns the bucket of a kind, which is made if need be and made says so.
func (b *builder) bucket(kind string, made bool) (*bucket, error) {
	if b.tx == nil {
		tx, err := b.db.Begin(true)
		if err != nil {
			return nil, writing(err)
		}
		b.tx = tx
	}
	i := 0
	for i < len(b.buckets) && b.buckets[i].kind != kind {
		i++
	}
	if i == len(b.buckets) {
		b.buckets = append(b.buckets, bucket{kind: kind})
		b.buckets[i].open(b.tx.Bucket([]byte(kind)))
	}
	at := &b.buckets[i]
	if at.b == nil && made {
		found, err := b.tx.CreateBucket([]byte(kind))
		if err != nil {
			return nil, writing(err)
		}
		at.open(found)
	}
	return at, nil
}

// keep copies a value to where it stays until the commit.
func (b *builder) keep(value []byte) []byte {
	if cap(b.memory)-len(b.memory) < len(value) {
		b.memory = make([]byte, 0, max(len(value), 256<<10))
	}
	from := len(b.memory)
	b.memory = append(b.memory, value...)
	return b.memory[from:len(b.memory):len(b.memory)]
}

// grown commits once there is enough for it: little at a time, so that nobody else
// waits long for the disk.
func (b *builder) grown(n int) error {
	const enough = 2 << 20
	if b.size += n; b.size < enough {
		return nil
	}
	return b.commit()
}

// commit writes what was added to the disk; settle makes it durable.
func (b *builder) commit() error {
	tx := b.tx
	if tx == nil {
		return nil
	}
	b.tx, b.size, b.memory = nil, 0, nil
	clear(b.buckets)
	b.buckets = b.buckets[:0]
	err := tx.Commit()
	if err == nil {
		err = writeOut(b.file)
	}
	if err != nil {
		return writing(err)
	}
	return nil
}

// settle makes the file a store with the given state, durable, and no longer than
// it has to be. What was added has to be what the state counts. More may be added
// afterwards, and that settled.
func (b *builder) settle(st state) error {
	if b.found != st.held {
		return corrupt("the copy holds %d values with the sum %x; there should be %d, with %x", b.found.count, b.found.sum, st.held.count, st.held.sum)
	}
	at, err := b.bucket(metaKind, true)
	if err != nil {
		return err
	}
	if err := writeState(at.b, st); err != nil {
		return writing(err)
	}
	if err := b.commit(); err != nil {
		return err
	}
	var used int64
	err = b.db.View(func(tx *bbolt.Tx) error {
		used = tx.Size()
		return nil
	})
	if err == nil {
		err = b.file.Truncate(used)
	}
	if err == nil {
		err = b.file.Sync()
	}
	if err != nil {
		return writing(err)
	}
	return nil
}

// finish makes the file durable and closes it. The state's census is that of the
// values that were added, whatever it said.
func (b *builder) finish(st state) error {
	st.held = b.found
	if err := b.settle(st); err != nil {
		b.abandon()
		return err
	}
	if err := b.db.Close(); err != nil {
		return writing(err)
	}
	return nil
}

// abandon closes the file and removes it.
func (b *builder) abandon() {
	if b.tx != nil {
		_ = b.tx.Rollback() // cannot fail while it is open
	}
	path := b.file.Name()
	_ = b.db.Close()
	_ = os.Remove(path)
}

func writing(err error) error {
	if noSpace(err) {
		err = fmt.Errorf("%w: %w", store.ErrFull, err)
	}
	return fmt.Errorf("bolt: writing a new file: %w", err)
}
