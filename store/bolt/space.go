package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"sessiond/store"
)

// An end must be written even when nothing else can be, so some space is set aside
// for ends: the ballast, a file beside the store that takes up real blocks, and as
// much below Options.MaxSize. When the disk is full the ballast is removed, and all
// commits but the urgent ones are refused until there is room for it again, and for
// as much on top, or the file has so many free pages inside.

const (
	ballastFile  = ".ballast" // after the name of the store
	ballastShare = 8          // it is at most so much of the file system
	leastRoom    = 1 << 20    // what is waited for where nothing is set aside

	probeEvery = time.Second
	probeMost  = time.Minute // where room turned out to be none again and again
	relapse    = 16          // commits, within which it turned out so
)

// space is what is set aside, and what the writer knows of the space that
// is left. It is the writer's.
type space struct {
	*Store

	want  int64 // bytes to set aside; 0: none
	short bool  // they are not, free pages of the file stand for them
	timer *time.Timer
	every time.Duration // until the next look
	since store.Rev     // at the last resumption
}

// reserve sets the ballast aside when the store is opened.
func (s *Store) reserve() *space {
	r := &space{Store: s, want: max(0, s.options.Ballast), every: probeEvery}
	if s.options.MaxSize > 0 {
		r.want = min(r.want, s.options.MaxSize/ballastShare)
	}
	if size, _, ok := fileSystem(filepath.Dir(s.path)); ok {
		r.want = min(r.want, size/ballastShare)
	}
	switch {
	case s.options.Ballast < 0:
		r.release()
	case r.want > 0 && !r.ballast():
		if r.short = r.inside() >= r.enough(); r.short {
			r.look()
		} else {
			r.fill(errors.New("bolt: there is no room for what is set aside for ends"))
		}
	}
	return r
}

// bind tells bbolt how far its file may grow, before each commit: below MaxSize
// what is set aside is out of its reach. As it grows by large steps, beyond which it
// does not look, they become smaller.
func (r *space) bind() {
	limit := r.options.MaxSize
	if limit == 0 {
		return
	}
	db, kept := r.db.Load(), r.want
	if r.Full() != nil {
		kept = 0
	}
	db.AllocSize = int(max(64<<10, min(int64(db.AllocSize), limit/ballastShare/4)))
	db.MaxSize = int(limit - kept)
}

// fill is called when a commit found no space: it gives what was set aside free,
// and has the queue take urgent commits only.
func (r *space) fill(cause error) {
	if r.Full() != nil {
		return
	}
	if r.every = min(2*r.every, probeMost); r.Rev() >= r.since+relapse || r.since == 0 {
		r.every = probeEvery
	}
	full := fmt.Errorf("%w: only ends are still written: %w", store.ErrFull, cause)
	r.full.Store(&full)
	r.queue.hold(full)
	r.release()
	r.short = false
	r.look()
	r.options.report(Report{Condition: Full, Cause: cause})
}

// look has the writer probe after a while.
func (r *space) look() {
	if r.timer == nil {
		r.timer = time.NewTimer(r.every)
	} else {
		r.timer.Reset(r.every)
	}
}

// due is ready when it is time to probe; nil while there is nothing to look for.
func (r *space) due() <-chan time.Time {
	if r.timer == nil {
		return nil
	}
	return r.timer.C
}

// rest ends the probing.
func (r *space) rest() {
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
}

// probe looks whether there is space again, and lets all commits in if there is.
func (r *space) probe() {
	outside := r.outside()
	if !outside && r.inside() < r.enough() {
		r.look()
		return
	}
	if r.short = !outside; r.short {
		r.look() // for the ballast
	} else {
		r.rest()
	}
	if r.full.Swap(nil) != nil {
		r.since = r.Rev()
		r.queue.hold(nil)
		r.options.report(Report{Condition: Resumed})
	}
}

// isUsedUp reports whether free pages had to stand for what is set aside, and are too
// few by now.
func (r *space) isUsedUp() bool { return r.short && r.inside() < r.want }

// enough is how many free bytes are worth going on with.
func (r *space) enough() int64 {
	if r.want > 0 {
		return 2 * r.want
	}
	if size, _, ok := fileSystem(filepath.Dir(r.path)); ok {
		return min(leastRoom, size/ballastShare)
	}
	return leastRoom
}

// outside reports whether there is enough space around the file, and sets the
// ballast aside if so.
func (r *space) outside() bool {
	if _, free, ok := fileSystem(filepath.Dir(r.path)); ok && free < r.enough() {
		return false
	}
	used := r.used()
	if limit := r.options.MaxSize; limit > 0 && limit-used < r.enough() {
		return false
	}
	// What bbolt asks for when it grows the file; a limit of its size shows here.
	grown := int64(r.db.Load().AllocSize)
	if info, err := r.file.Stat(); err != nil || info.Size() < used+grown && r.file.Truncate(used+grown) != nil {
		return false
	}
	return r.want == 0 || r.ballast()
}

// used returns how far the file is in use; inside, how much of that is free pages.
func (r *space) used() (n int64) {
	_ = r.read(func(tx *bbolt.Tx) error { // fails once the store is closed
		n = tx.Size()
		return nil
	})
	return n
}

func (r *space) inside() int64 {
	db := r.db.Load()
	st := db.Stats()
	return int64(st.FreePageN+st.PendingPageN) * int64(db.Info().PageSize)
}

// ballast makes the file that takes up space, if it is not there, and reports
// whether it is. Where the file system cannot set space aside there is no ballast.
func (r *space) ballast() bool {
	path := r.path + ballastFile
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && info.Size() == r.want && allocated(info) >= r.want {
		return true
	}
	r.release()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return false
	}
	err = allocate(f, r.want)
	if errors.Is(err, errors.ErrUnsupported) {
		r.want = 0
	}
	if err = errors.Join(err, f.Close()); err != nil {
		r.release()
	}
	return err == nil || r.want == 0
}

// release removes the ballast. One that cannot be removed is of no use.
func (r *space) release() { _ = os.Remove(r.path + ballastFile) }
