package bolt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"sessiond/store"
)

// Summary is what Verify has counted in a sound store.
type Summary struct {
	Size  int64             // of the file, in bytes
	Bytes int64             // of keys and values
	Kinds map[string]uint64 // values of each kind, the log's included
	Rev   store.Rev
	Head  store.Head // of the log: compare it with one noted earlier
}

// Verify reads the whole file at path, which no server may have open (else
// ErrLocked), and changes nothing. It checks that the pages hold together, the
// CRC of each value, and the chain of the log from the anchor under
// store.AnchorKey to the head in the state. It tells report, if not nil, what it
// is at and how many things it has seen of that: "values", "pages", "log".
// Damage is an error that wraps store.ErrCorrupt and names the place; the
// summary then holds what was counted before.
func Verify(ctx context.Context, path string, report func(stage string, n uint64)) (Summary, error) {
	if report == nil {
		report = func(string, uint64) {}
	}
	f, err := os.Open(path)
	if err != nil {
		return Summary{}, fmt.Errorf("bolt: the store cannot be opened: %w", err)
	}
	if err := lock(ctx, f, syscall.LOCK_SH, time.Second); err != nil {
		return Summary{}, errors.Join(err, f.Close())
	}
	sum := Summary{Kinds: map[string]uint64{}}
	if err := sum.values(ctx, f, report); err != nil {
		return sum, errors.Join(err, f.Close())
	}
	db, err := openDB(f, &bbolt.Options{ReadOnly: true, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, NoStatistics: true})
	if err != nil {
		return sum, err
	}
	// Never written to: it has no queue and no writer.
	s := &Store{file: f}
	s.db.Store(db)
	return sum, errors.Join(structure(s, report), sum.log(ctx, s, report), db.Close())
}

// values walks the pages and checks each value, and that none is missing.
func (sum *Summary) values(ctx context.Context, f *os.File, report func(string, uint64)) error {
	var n uint64
	var newest store.Rev
	st, err := take(ctx, f, func(kind string, name, value []byte) error {
		rev, _, err := unseal(kind, name, value)
		if err != nil {
			return err
		}
		newest = max(newest, rev)
		sum.Bytes += int64(len(kind) + len(name) + len(value))
		if kind != metaKind {
			sum.Kinds[kind]++
		}
		if n++; n%100_000 == 0 {
			report("values", n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	report("values", n)
	if newest > st.rev {
		return corrupt("a value has revision %d, beyond the store's %d", newest, st.rev)
	}
	sum.Rev, sum.Head = st.rev, st.head
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("bolt: %w", err)
	}
	sum.Size = info.Size()
	return nil
}

// structure has bbolt check its file, which is safe only after values.
func structure(s *Store, report func(string, uint64)) error {
	return s.read(func(tx *bbolt.Tx) error {
		var found error
		for err := range tx.Check() { // to its end, or it would never end
			found = errors.Join(found, err)
		}
		if found != nil {
			return fmt.Errorf("%w: %w", store.ErrCorrupt, found)
		}
		report("pages", uint64(tx.Size()/int64(s.db.Load().Info().PageSize))) //nolint:gosec // a size
		return nil
	})
}

// log checks the chain.
func (sum *Summary) log(ctx context.Context, s *Store, report func(string, uint64)) error {
	var anchor store.Head
	item, err := s.Get(ctx, store.AnchorKey)
	if err == nil {
		anchor, err = store.DecodeHead(item.Value)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("anchor of the log: %w", err)
	}
	head, err := store.VerifyLog(ctx, s, anchor, func(n uint64) { report("log", n) })
	if err != nil {
		return err
	}
	if head != sum.Head {
		return corrupt("log: it ends at position %d, its head is at %d", head.Seq, sum.Head.Seq)
	}
	return nil
}
