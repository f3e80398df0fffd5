// Package bolt is the durable store: one bbolt file, one process.
//
// # Writing
//
// One goroutine writes. It takes all commits that wait, urgent ones first,
// settles them one after another inside a single bbolt transaction (a commit
// whose conditions do not hold gets its ErrConflict, the others go on), and
// answers once that transaction is durable and the watchers have seen each
// commit. So many callers share the two fdatasyncs of a transaction. Kinds are
// buckets; keys that grow with time keep the rate independent of the number of
// records, because pages are filled from the end.
//
// # Failing
//
// A full disk (or quota, or file size limit) refuses the commits under way with
// ErrFull. From then on urgent commits alone are tried, in the space that was set
// aside for them, until there is room again; see space. After any other failed bbolt
// commit the file may or may not hold what was written, and so may the page cache:
// those commits get ErrUnknown and nothing is ever written again until the file is
// opened anew; Failed says why. Reading goes on. A marker beside the file then makes
// the next start write it anew, see copySuspect.
//
// # The file
//
// Every value is stored as
//
//	format byte | revision, 8 bytes | payload | CRC-32C of key, format, revision and payload, 4 bytes
//
// big-endian, under the key's slash and rest in the bucket of its kind. The
// bucket "meta" holds one such value, "/state", written in every transaction:
// the store's revision, the head of the log, and how many values there are, with
// the sum of their CRCs. bbolt itself would not notice a flipped bit in a value,
// may lose values to one in a page, or crash. So reading checks the CRC, and
// opening checks the whole file before bbolt sees it (check.go), for a server in a
// process of its own (inchild.go).
package bolt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"sessiond/store"
)

// ErrLocked means that another process has the file open.
var ErrLocked = errors.New("another server uses this data folder")

// Options of a store. The zero value is what a tool wants that opens it for a moment.
type Options struct {
	Queue   int           // commits that may wait, and as many urgent ones; 0 means 4,096
	MaxSize int64         // bytes that the file may grow to, then commits get ErrFull; 0 means no limit
	Lock    time.Duration // how long to wait for another process to let go of the file; 0 means 1 s

	// Beyond is for a copy that is to take the place of a store which has gone on
	// since: revisions and positions of the log go on beyond this number, so that
	// none is given twice. The first commit has to append to the log.
	Beyond uint64

	// ReadOnly is for who only looks: the file has to be there and stays as it is, of an
	// older format too, and store.ErrStopped refuses all commits.
	ReadOnly bool

	// Check decides whether the file is sound, before anything is written to it;
	// nil checks it in this process. Progress, if not nil, is told how far it is.
	Check    Check
	Progress Progress

	// Upgrading, if not nil, is told before a file of an older format becomes one of
	// Format, and where a copy of it stays.
	Upgrading func(from int, kept string)

	// Ballast is how many bytes to set aside for urgent commits, beside the file and
	// below MaxSize: at most an eighth of the file system, and of MaxSize. Below 0 there
	// are none; 0 leaves what is there.
	Ballast int64

	// Report, if not nil, is told of what an operator should know. It must not use the
	// store, and must not take long.
	Report func(Report)

	Now func() time.Time // times slow commits and says when writing stopped; nil: neither is told

	point func(name string) // of tests: told of moments at which a crash would be hard to survive
}

func (o Options) withDefaults() Options {
	if o.Queue == 0 {
		o.Queue = 4096
	}
	if o.Lock == 0 {
		o.Lock = time.Second
	}
	if o.Check == nil {
		o.Check = check
	}
	return o
}

// at tells a test of a moment.
func (o Options) at(moment string) {
	if o.point != nil {
		o.point(moment)
	}
}

// bbolt returns what bbolt is to be opened with.
func (o Options) bbolt() *bbolt.Options {
	return &bbolt.Options{
		NoFreelistSync:  true,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: 1 << 30, // address space only; a remap has to wait for all readers
		MaxSize:         int(o.MaxSize),
		ReadOnly:        o.ReadOnly,
	}
}

// Store is an open file.
type Store struct {
	path    string
	options Options
	db      atomic.Pointer[bbolt.DB] // compacting puts another in its place; the writer does it
	file    *os.File                 // the one that db uses; the writer's until written
	feed    store.Feed
	queue   *queue

	full    atomic.Pointer[error] // what commits that are not urgent are told; nil: they are tried
	failed  atomic.Pointer[error] // why writing has stopped
	written chan struct{}         // closed when the writer has ended
	wedged  bool                  // bbolt panicked and holds its lock; the writer's until written
	closing sync.Once
	closed  atomic.Bool
}

// Open opens the file at path and starts to write. If there is none, it is
// made, complete or not at all; its folder must exist. One of an older format is
// upgraded, once a copy is beside it. Errors: ErrLocked, ErrNewer, one that wraps
// store.ErrCorrupt (the file is damaged), with all of which it is untouched, or what
// the system says.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	o = o.withDefaults()
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // what takes the place of the file must not take that of a link to it
	}
	file, err := openFile(ctx, path, &o)
	if err != nil {
		return nil, err
	}
	db, err := openDB(file, o.bbolt())
	if err != nil {
		return nil, err
	}
	s := &Store{path: path, options: o, file: file, queue: newQueue(o.Queue), written: make(chan struct{})}
	s.db.Store(db)
	var st state
	if err := s.read(func(tx *bbolt.Tx) (err error) {
		st, err = readState(tx)
		return err
	}); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if o.ReadOnly {
		s.feed.Reset(st.rev)
		s.queue.refuse(store.ErrStopped)
		close(s.written)
		return s, nil
	}
	if st.format < Format {
		if st, err = upgrade(db, st, &o); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	st.rev, st.head.Seq = max(st.rev, store.Rev(o.Beyond)), max(st.head.Seq, o.Beyond)
	s.feed.Reset(st.rev)
	w := &writer{Store: s, space: s.reserve(), state: st}
	w.stopwatch.now, w.stopwatch.report = o.Now, func(took time.Duration) {
		o.report(Report{Condition: Slow, Took: took, Waiting: int(s.queue.waiting.Load())})
	}
	go w.run()
	return s, nil
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, tx store.Tx) (store.Rev, error) {
	if err := tx.Check(); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("%w: %w", store.ErrBusy, err)
	}
	return s.enqueue(ctx, newRequest(tx))
}

// errand has the writer do something between two batches: what it reads and changes
// of the writer is then settled, told to all watchers and durable. Errors are those
// of Commit, and what do returns.
func (s *Store) errand(ctx context.Context, do func(*writer) error) error {
	r := newRequest(store.Tx{Urgent: true})
	r.errand = do
	_, err := s.enqueue(ctx, r)
	return err
}

// enqueue hands r to the writer and waits for its answer.
func (s *Store) enqueue(ctx context.Context, r *request) (store.Rev, error) {
	if err := s.queue.push(r); err != nil {
		r.free()
		return 0, err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if r.withdraw() {
			return 0, fmt.Errorf("%w: %w", store.ErrBusy, ctx.Err()) // the writer frees r
		}
		<-r.done
	}
	rev, err := r.rev, r.err
	r.free()
	return rev, err
}

// Watch implements store.Store. No changes are kept: after has to be the
// present revision, 0 for a new store.
func (s *Store) Watch(after store.Rev, w store.Watcher) (stop func(), err error) {
	return s.feed.Watch(after, w)
}

// Rev implements store.Store.
func (s *Store) Rev() store.Rev { return s.feed.Rev() }

// Failed says why writing has stopped, nil while it has not. Only opening the
// file anew ends it.
func (s *Store) Failed() error {
	if p := s.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// Full says that there is no space and urgent commits alone are tried, nil while all
// are. It ends by itself once there is room.
func (s *Store) Full() error {
	if p := s.full.Load(); p != nil {
		return *p
	}
	return nil
}

// Close implements store.Store: commits that wait are still written. Reading
// ends too. A watcher must not call it.
func (s *Store) Close() (err error) {
	s.closing.Do(func() {
		s.queue.refuse(store.ErrStopped)
		<-s.written
		s.closed.Store(true)
		if s.wedged {
			err = s.file.Close() // lets go of the lock; bbolt's memory is lost
			return
		}
		if err = s.db.Load().Close(); err != nil {
			err = fmt.Errorf("bolt: closing the store: %w", err)
		}
	})
	return err
}
