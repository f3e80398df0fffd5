// Package upkeep does the long work on the store's file while the server runs, one
// job at a time: backups, and compacting, also by itself when much of the file is
// free.
//
// A job is begun by whoever asks for it, and goes on whether or not he waits: others
// join it, and he may ask again for as long as it is remembered. A job that ends well
// leaves its event in the log.
package upkeep

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/event"
	"sessiond/internal/logging"
	"sessiond/store"
	"sessiond/store/bolt"
)

// Folder is where backups are kept, within the data folder.
const Folder = "backups"

// Suffix ends the name of a backup's file.
const Suffix = ".db"

// Files is a store whose file can be worked on; *bolt.Store is one.
type Files interface {
	Backup(ctx context.Context, path string, o bolt.CopyOptions) (bolt.Summary, error)
	Compact(ctx context.Context, o bolt.CopyOptions) (before, after int64, err error)
	Size() (file, free int64)
}

// Deps are what a Keeper works with.
type Deps struct {
	Files  Files  // nil: the store has no file, and every job is refused
	Dir    string // the data folder
	Clock  clock.Clock
	Log    *logging.Logger
	Rate   int64                                          // bytes a second that a job may copy; 0: no limit
	Record func(ctx context.Context, e event.Event) error // adds to the log of changes
}

// Keeper does jobs.
type Keeper struct {
	deps   Deps
	ctx    context.Context //nolint:containedctx // that of the jobs, which outlive the requests that begin them
	cancel context.CancelFunc
	group  sync.WaitGroup

	mu   sync.Mutex
	jobs []*job // the last few; the last of them may be running
}

// remembered is how many jobs may still be asked for.
const remembered = 32

// job is a Job and its end.
type job struct {
	ended chan struct{} // closed at its end

	mu  sync.Mutex
	now api.Job
	err error
}

func (j *job) state() (api.Job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.now, j.err
}

func (j *job) running() bool {
	select {
	case <-j.ended:
		return false
	default:
		return true
	}
}

// New returns a keeper, which is to be stopped: the end of ctx does not end its jobs.
func New(ctx context.Context, d Deps) *Keeper {
	k := &Keeper{deps: d}
	k.ctx, k.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return k
}

// Stop gives up the job that runs, and lets no other begin.
func (k *Keeper) Stop() {
	k.mu.Lock() // or one that is about to begin would not be waited for
	k.cancel()
	k.mu.Unlock()
	k.group.Wait()
}

// backupName is what a backup may be called: no path, and no name that is hidden.
var backupName = regexp.MustCompile(`^[0-9A-Za-z_-][0-9A-Za-z._-]{0,99}$`)

// CheckName returns a BadParam if a backup cannot be called so.
func CheckName(name string) error {
	if !backupName.MatchString(name) {
		return api.Errorf(api.BadParam, "name must be 1 to 100 letters, digits, '.', '_' and '-', and not begin with '.'")
	}
	return nil
}

// Backup begins a backup of the given name, one made of the time if it is empty, or
// joins the one that runs if that is meant, and waits so long for its end. The event
// says who asked. Errors are api.Errors: BadParam for the name; AlreadyExists;
// Conflict while another job runs, and where there is no file; StorageFull if there is
// no room; those of the job itself.
func (k *Keeper) Backup(ctx context.Context, name string, wait time.Duration, by event.Event) (api.Job, error) {
	if name != "" {
		if err := CheckName(name); err != nil {
			return api.Job{}, err
		}
	}
	j, err := k.begin(func(running api.Job) bool { return running.Name != "" && (name == "" || name == running.Name) }, func(j *job) func(context.Context) error {
		if name == "" {
			name = k.fresh(k.deps.Clock.Now().UTC().Format("20060102T150405Z"))
		}
		j.now.Name = name
		return func(ctx context.Context) error { return k.backup(ctx, j, name, by) }
	})
	if err != nil {
		return api.Job{}, err
	}
	return j.wait(ctx, wait)
}

// fresh returns a name that no job of late was given: name, or that and a number. The
// caller holds mu.
func (k *Keeper) fresh(name string) string {
	given := func(name string) bool {
		return slices.ContainsFunc(k.jobs, func(j *job) bool {
			now, _ := j.state()
			return now.Name == name
		})
	}
	unique := name
	for n := 2; given(unique); n++ {
		unique = name + "-" + strconv.Itoa(n)
	}
	return unique
}

// Compact begins to compact the store, or joins who does, and waits so long for its
// end. Errors are as those of Backup.
func (k *Keeper) Compact(ctx context.Context, wait time.Duration, by event.Event) (api.Job, error) {
	j, err := k.begin(func(running api.Job) bool { return running.Name == "" }, func(j *job) func(context.Context) error {
		return func(ctx context.Context) error { return k.compact(ctx, j, by) }
	})
	if err != nil {
		return api.Job{}, err
	}
	return j.wait(ctx, wait)
}

// Wait waits so long for the end of a job that was begun. Errors: NotFound if there is
// none, or none any more; those of the job.
func (k *Keeper) Wait(ctx context.Context, id string, wait time.Duration) (api.Job, error) {
	k.mu.Lock()
	var found *job
	for _, j := range k.jobs {
		if now, _ := j.state(); now.ID == id {
			found = j
		}
	}
	k.mu.Unlock()
	if found == nil {
		return api.Job{}, api.Errorf(api.NotFound, "no such job is remembered: the server was restarted, or did many others since")
	}
	return found.wait(ctx, wait)
}

// begin starts what prepare returns, or returns the job that runs if same says that it
// is the one.
func (k *Keeper) begin(same func(running api.Job) bool, prepare func(*job) func(context.Context) error) (*job, error) {
	if k.deps.Files == nil {
		return nil, api.Errorf(api.Conflict, "the data is in memory: there is no file to work on")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ctx.Err() != nil {
		return nil, api.Errorf(api.ShuttingDown, "the server is stopping")
	}
	if n := len(k.jobs); n > 0 && k.jobs[n-1].running() {
		last := k.jobs[n-1]
		if now, _ := last.state(); !same(now) {
			return nil, api.Errorf(api.Conflict, "another job runs on the store's file: ask again once it has ended")
		}
		return last, nil
	}
	j := &job{ended: make(chan struct{}), now: api.Job{ID: rand.Text(), State: api.JobRunning}}
	do := prepare(j)
	k.jobs = append(k.jobs[max(0, len(k.jobs)+1-remembered):], j)
	k.group.Go(func() {
		defer close(j.ended)
		err := do(k.ctx)
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.now.State = api.JobDone; err != nil {
			j.err = told(err)
			k.deps.Log.Error("a job on the store's file failed", logging.Err(err))
		}
	})
	return j, nil
}

// wait waits so long for the end of j. One that still runs has no error.
func (j *job) wait(ctx context.Context, wait time.Duration) (api.Job, error) {
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	select {
	case <-j.ended:
	case <-timeout.C:
	case <-ctx.Done():
	}
	return j.state()
}

func (k *Keeper) backup(ctx context.Context, j *job, name string, by event.Event) error {
	dir := filepath.Join(k.deps.Dir, Folder)
	if err := bolt.MakeFolder(dir); err != nil {
		return fmt.Errorf("the folder of backups cannot be made: %w", err)
	}
	bolt.Give(dir)
	if err := bolt.SweepBackups(dir); err != nil {
		return err
	}
	path := filepath.Join(dir, name+Suffix)
	sum, err := k.deps.Files.Backup(ctx, path, k.options(j))
	if err != nil {
		return err
	}
	bolt.Give(path)
	j.mu.Lock()
	j.now.FileBytes, j.now.Revision, j.now.LogHead = sum.Size, uint64(sum.Rev), sum.Head.String()
	j.mu.Unlock()
	k.deps.Log.Info("backed up", logging.Str("backup", name), logging.Int("bytes", int(sum.Size)), logging.Str("logHead", sum.Head.String()))
	by.Kind, by.Service = event.StoreBackedUp, name
	return k.record(ctx, by)
}

func (k *Keeper) compact(ctx context.Context, j *job, by event.Event) error {
	before, after, err := k.deps.Files.Compact(ctx, k.options(j))
	if err != nil {
		return err
	}
	j.mu.Lock()
	j.now.FileBytesBefore, j.now.FileBytes = before, after
	j.now.Done, j.now.Total = after, after
	j.mu.Unlock()
	k.deps.Log.Info("compacted", logging.Int("bytes", int(after)), logging.Int("before", int(before)))
	by.Kind = event.StoreCompacted
	return k.record(ctx, by)
}

// record writes the event of a job that is done. What is done stays so without it.
func (k *Keeper) record(ctx context.Context, e event.Event) error {
	e.Time = k.deps.Clock.Now()
	if err := k.deps.Record(context.WithoutCancel(ctx), e); err != nil { // a server that stops still writes it
		k.deps.Log.Error("a job on the store's file is done, but is not in the log of changes", logging.Err(err))
	}
	return nil
}

func (k *Keeper) options(j *job) bolt.CopyOptions {
	return bolt.CopyOptions{Rate: k.deps.Rate, Report: func(done, total uint64) {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.now.Done, j.now.Total = int64(done), int64(total) //nolint:gosec // sizes
	}}
}

// told is what who waits for a job is told of its error.
func told(err error) error {
	noRoom, ok := errors.AsType[*bolt.NoRoomError](err)
	switch {
	case ok:
		return api.Errorf(api.StorageFull, "there is no room for a copy: %d bytes are missing", noRoom.Missing).Because(err)
	case errors.Is(err, store.ErrFull), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return api.Errorf(api.StorageFull, "there is no room for a copy").Because(err)
	case errors.Is(err, store.ErrStopped), errors.Is(err, syscall.EROFS):
		return api.Errorf(api.StorageFailed, "the disk cannot be written any more: the operator must act").Because(err)
	case errors.Is(err, bolt.ErrExists):
		return api.Errorf(api.AlreadyExists, "there is a backup of that name").Because(err)
	case errors.Is(err, context.Canceled):
		return api.Errorf(api.ShuttingDown, "the server is stopping: the job was given up").Because(err)
	case errors.Is(err, store.ErrCorrupt):
		return api.Errorf(api.Internal, "the store's file is damaged: stop the server and run sessiond verify").Because(err)
	}
	return err
}

// Wasteful says whether a file of so many bytes, of which so many are free, is worth
// compacting: more than a third of it is free, and it is not small. The pages in use
// are up to 1.8 times their values where some went and others stayed, so the file is
// never three times what it holds for long.
func Wasteful(file, free int64) bool {
	const small = 64 << 20
	return file > small && free > file/3
}

// Run compacts the store by itself, now and then, where its file is wasteful. It ends
// with ctx.
func (k *Keeper) Run(ctx context.Context) {
	const often = 10 * time.Minute
	if k.deps.Files == nil {
		return
	}
	look := time.NewTicker(often)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			if Wasteful(k.deps.Files.Size()) {
				_, _ = k.Compact(ctx, 0, event.Event{}) // logs what goes wrong; another job may be under way
			}
		}
	}
}
