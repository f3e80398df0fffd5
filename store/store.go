// Package store is the door to durable data: keys, values, conditions and an
// append-only log, and nothing about sessions.
//
// # Keys
//
// A key is "kind/rest": a kind of a few letters, a slash, and any bytes. Each
// kind is kept apart from the others, in byte order of the rest, so keys that
// grow with time stay cheap to append. The kind "log" belongs to the log, the
// kind "meta" to the backend.
//
// # Commits
//
// A commit is all or nothing: its conditions are checked, its changes applied
// and its entries appended in one step, and it returns once that is durable.
// Commits have one order, and each has a revision in it: store-wide, growing,
// never reused. What a commit's error means is said at the errors below; a
// caller is written for ErrUnknown.
//
// # Projections
//
// Watch feeds a projection (the live table, say) with every commit in order.
// A backend in one process calls it before Commit returns.
package store

import (
	"context"
	"errors"
)

// Limits that hold for every backend, so that code written against one runs on
// all. A commit outside them is refused before anything is tried.
const (
	MaxOps      = 100     // conditions, puts, deletes and entries of one commit, each; see Tx.Check
	MaxKeyLen   = 512     // bytes of a key
	MaxValueLen = 1 << 20 // bytes of a value or of an entry
)

// Rev is a revision: the number of the commit that wrote a key. A key that does
// not exist is at revision 0.
type Rev uint64

// Item is a key with its value. The bytes belong to the caller.
type Item struct {
	Key   string
	Value []byte
	Rev   Rev
}

// Cond holds while Key is at Rev; with Rev 0, while Key does not exist.
type Cond struct {
	Key string
	Rev Rev
}

// Put sets Key to Value.
type Put struct {
	Key   string
	Value []byte
}

// Tx is one commit. The backend does not keep its slices after Commit returned,
// and does not write to them. A key is named by one Put or Delete at the most.
type Tx struct {
	If     []Cond
	Put    []Put
	Delete []string // deleting what is absent is fine
	Append [][]byte // opaque entries for the log, in this order

	// Urgent commits go before the others that wait, and are tried even when the
	// store is full: a revocation must not stand in line behind log-ins. What makes
	// room is urgent too.
	Urgent bool
}

// Range asks for items whose keys begin with Prefix, in byte order.
type Range struct {
	Prefix  string // at least a kind and its slash
	After   string // only keys beyond this one, in the direction of the walk; "" from the start
	Limit   int    // at most so many items; 0 means 1,000
	Reverse bool   // from the last key to the first
}

// Change is what one commit did, as a projection sees it. Its bytes may be read
// until the watcher returns.
type Change struct {
	Rev     Rev
	Put     []Item   // with the revision of this commit
	Delete  []string // keys that were there and are gone now
	Entries []Entry  // appended to the log, with their positions

	// More says that the next commit became durable together with this one, and that
	// its Change follows before either is answered. What has to be done before an
	// answer may be done once for all of them, when More is false.
	More bool
}

// Watcher is told of each commit, in order and from one goroutine at a time. It
// must not call Commit; Get and List are allowed.
type Watcher func(Change)

// Store is a backend. All methods may be called from any goroutine.
type Store interface {
	// Get returns the item at key, or ErrNotFound.
	Get(ctx context.Context, key string) (Item, error)

	// List returns a page of items. Pages are no snapshot: what commits
	// between two calls may or may not show.
	List(ctx context.Context, r Range) ([]Item, error)

	// Commit applies tx and returns its revision once it is durable and all
	// watchers of this process have seen it. An error is one of ErrConflict,
	// ErrFull, ErrBusy, ErrStopped, ErrInvalid (nothing applied) or anything
	// else: unknown, perhaps applied now or after a restart. A context that ends
	// while the commit waits for its turn gives ErrBusy; after that the outcome
	// is waited for.
	Commit(ctx context.Context, tx Tx) (Rev, error)

	// Watch calls w for every commit after the given revision until the
	// returned stop is called. A revision older than the backend's memory of
	// changes gives ErrGap: load first, then watch from the loaded revision.
	Watch(after Rev, w Watcher) (stop func(), err error)

	// Rev returns the revision of the last commit.
	Rev() Rev

	// Close waits for the commits under way and releases the store. Commits
	// after it get ErrStopped. Closing twice is fine.
	Close() error
}

// Errors of a store. Compare with errors.Is.
var (
	ErrNotFound = errors.New("store: no such key")
	ErrConflict = errors.New("store: a condition does not hold; nothing was applied")
	ErrFull     = errors.New("store: no space left; nothing was applied")
	ErrBusy     = errors.New("store: too many commits wait; nothing was applied")
	ErrStopped  = errors.New("store: writing has stopped; nothing was applied")
	ErrInvalid  = errors.New("store: malformed commit; nothing was applied")
	ErrUnknown  = errors.New("store: the outcome of the commit is unknown")
	ErrGap      = errors.New("store: the changes asked for are no longer kept")
	ErrCorrupt  = errors.New("store: damaged data")
)

// NotApplied reports whether a commit that failed with err surely changed nothing.
func NotApplied(err error) bool {
	for _, sure := range []error{ErrConflict, ErrFull, ErrBusy, ErrStopped, ErrInvalid} {
		if errors.Is(err, sure) {
			return true
		}
	}
	return false
}
