package bolt

import (
	"context"
	"errors"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
)

// rewrite makes a new, compact file at path of all values that from holds, once it
// has checked that they are sound and that none is missing. The new file is
// durable, but for its name. Where anything is wrong there is none, and from is
// as it was.
func rewrite(ctx context.Context, from *os.File, path string) error {
	b, err := newBuilder(path)
	if err != nil {
		return err
	}
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

// A builder fills a new file with stored values. It is quickest, and the file
// smallest, when they come kind by kind and in order.
type builder struct {
	db    *bbolt.DB
	file  *os.File
	tx    *bbolt.Tx // nil: none is open
	size  int       // bytes in tx
	found census

	// The bucket of the value that came last.
	kind   string
	bucket *bbolt.Bucket
}

// newBuilder makes the file at path, which must not exist.
func newBuilder(path string) (*builder, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return nil, fmt.Errorf("bolt: a new file cannot be made: %w", err)
	}
	db, err := openDB(f, &bbolt.Options{
		NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, NoStatistics: true,
		NoSync: true, NoGrowSync: true, // finish does, once
	})
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return &builder{db: db, file: f}, nil
}

// add puts a stored value, as it is. Its bytes may change afterwards.
func (b *builder) add(kind string, name, value []byte) error {
	const enough = 4 << 20 // bytes in a transaction
	if b.size > enough {
		if err := b.commit(); err != nil {
			return err
		}
	}
	if b.tx == nil {
		tx, err := b.db.Begin(true)
		if err != nil {
			return fmt.Errorf("bolt: %w", err)
		}
		b.tx, b.kind, b.bucket = tx, "", nil
	}
	if b.bucket == nil || b.kind != kind {
		bucket, err := b.tx.CreateBucketIfNotExists([]byte(kind))
		if err != nil {
			return fmt.Errorf("bolt: %w", err)
		}
		bucket.FillPercent = fill
		b.kind, b.bucket = kind, bucket
	}
	b.size += len(name) + len(value)
	b.found.add(value)
	if err := b.bucket.Put(name, own(value)); err != nil {
		return fmt.Errorf("bolt: %w", err)
	}
	return nil
}

func (b *builder) commit() error {
	tx := b.tx
	if b.tx, b.size = nil, 0; tx == nil {
		return nil
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("bolt: writing a new file: %w", err)
	}
	return nil
}

// finish makes the file durable and closes it. The state's census is that of the
// values that were added, whatever it said.
func (b *builder) finish(st state) error {
	st.held = b.found
	err := b.commit()
	if err == nil {
		err = b.db.Update(func(tx *bbolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists(metaBucket)
			if err != nil {
				return err
			}
			return writeState(bucket, st)
		})
	}
	if err == nil {
		err = b.file.Sync()
	}
	if err != nil {
		b.abandon()
		return fmt.Errorf("bolt: writing a new file: %w", err)
	}
	return b.db.Close()
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
