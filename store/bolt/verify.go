package bolt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"sessiond/store"
)

// Summary is what Verify has counted in a sound store.
type Summary struct {
	Size  int64             // of the file, in bytes
	Bytes int64             // of keys and values
	Kinds map[string]uint64 // values of each kind, the log's included
	Rev   store.Rev

	Format int    // see Format
	ID     string // of the store, its copies included, in hexadecimal; zeros before format 2

	Head store.Head // of the log: compare it with one noted earlier
}

// Verify reads the whole file at path, which no server may have open (else
// ErrLocked), and changes nothing. It checks that the pages hold together, the
// CRC of each value, that none is missing, and the chain of the log from the anchor
// under store.AnchorKey to the head in the state. Damage is an error that wraps
// store.ErrCorrupt and names the place; the summary then holds what was counted
// before.
func Verify(ctx context.Context, path string, p Progress) (Summary, error) {
	f, err := os.Open(path)
	if err != nil {
		return Summary{}, fmt.Errorf("bolt: the store cannot be opened: %w", err)
	}
	if err := lock(ctx, f, syscall.LOCK_SH, time.Second); err != nil {
		return Summary{}, errors.Join(err, f.Close())
	}
	sum, err := survey(ctx, f, p)
	return sum, errors.Join(err, f.Close())
}
