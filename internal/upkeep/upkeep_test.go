package upkeep_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/event"
	"sessiond/internal/logging"
	"sessiond/internal/upkeep"
	"sessiond/store"
	"sessiond/store/bolt"
)

// slow is a store whose every job takes a minute.
type slow struct {
	file, free int64
	err        error
	compacted  int
}

func (s *slow) Backup(ctx context.Context, _ string, o bolt.CopyOptions) (bolt.Summary, error) {
	return bolt.Summary{Size: 300, Rev: 7, Head: store.Head{Seq: 5}}, s.work(ctx, o)
}

func (s *slow) Compact(ctx context.Context, o bolt.CopyOptions) (before, after int64, err error) {
	s.compacted++
	return 1000, 400, s.work(ctx, o)
}

func (s *slow) Size() (file, free int64) { return s.file, s.free }

func (s *slow) work(ctx context.Context, o bolt.CopyOptions) error {
	o.Report(100, 400)
	select {
	case <-time.After(time.Minute):
		return s.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func keeper(t *testing.T, files upkeep.Files) (k *upkeep.Keeper, events *[]event.Event) {
	t.Helper()
	events = &[]event.Event{}
	k = upkeep.New(t.Context(), upkeep.Deps{
		Files: files, Dir: t.TempDir(), Clock: clock.NewFake(time.Date(2026, 3, 2, 8, 15, 0, 0, time.UTC)), Log: logging.Nop(),
		Record: func(_ context.Context, e event.Event) error {
			*events = append(*events, e)
			return nil
		},
	})
	t.Cleanup(k.Stop)
	return k, events
}

func TestAJobGoesOnWithoutItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, events := keeper(t, &slow{})
		ctx := t.Context()
		first, err := k.Backup(ctx, "", 0, event.Event{By: event.Actor{Username: "admin"}})
		if err != nil || first.State != api.JobRunning || first.Name != "20260302T081500Z" {
			t.Fatalf("%+v, %v", first, err)
		}
		synctest.Wait()
		joined, err := k.Backup(ctx, first.Name, 0, event.Event{})
		if err != nil || joined.ID != first.ID || joined.Done != 100 || joined.Total != 400 {
			t.Errorf("who asks for the same gets %+v, %v", joined, err)
		}
		for what, ask := range map[string]func() (api.Job, error){
			"another backup": func() (api.Job, error) { return k.Backup(ctx, "other", 0, event.Event{}) },
			"compacting":     func() (api.Job, error) { return k.Compact(ctx, 0, event.Event{}) },
		} {
			if _, err := ask(); api.FromError(err).Code != api.Conflict {
				t.Errorf("%s beside it: %v, want a conflict", what, err)
			}
		}
		done, err := k.Wait(ctx, first.ID, time.Hour)
		if err != nil || done.State != api.JobDone || done.FileBytes != 300 || done.Revision != 7 || done.LogHead[:2] != "5:" {
			t.Errorf("%+v, %v", done, err)
		}
		want := event.Event{Time: time.Date(2026, 3, 2, 8, 15, 0, 0, time.UTC), Kind: event.StoreBackedUp, Service: first.Name, By: event.Actor{Username: "admin"}}
		if len(*events) != 1 || fmt.Sprint((*events)[0]) != fmt.Sprint(want) {
			t.Errorf("events %+v, want %+v", *events, want)
		}
		compacted, err := k.Compact(ctx, time.Hour, event.Event{})
		if err != nil || compacted.FileBytesBefore != 1000 || compacted.FileBytes != 400 {
			t.Errorf("%+v, %v", compacted, err)
		}
		if again, err := k.Backup(ctx, "", time.Hour, event.Event{}); err != nil || again.Name != first.Name+"-2" {
			t.Errorf("another one within the same second: %+v, %v", again, err)
		}
		if _, err := k.Wait(ctx, "unknown", 0); api.FromError(err).Code != api.NotFound {
			t.Errorf("an unknown job: %v", err)
		}
	})
}

func TestWhoWaitsForAJobGetsItsError(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want api.Code
	}{
		"no room":  {&bolt.NoRoomError{Missing: 42}, api.StorageFull},
		"no quota": {fmt.Errorf("writing: %w", store.ErrFull), api.StorageFull},
		"stopped":  {store.ErrStopped, api.StorageFailed},
		"folder":   {&fs.PathError{Op: "mkdir", Path: "backups", Err: syscall.ENOSPC}, api.StorageFull},
		"there":    {bolt.ErrExists, api.AlreadyExists},
		"damaged":  {fmt.Errorf("page 3: %w", store.ErrCorrupt), api.Internal},
		"anything": {errors.New("disk"), api.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k, events := keeper(t, &slow{err: tt.err})
				j, err := k.Backup(t.Context(), "b", time.Second, event.Event{})
				if err != nil {
					t.Fatal(err)
				}
				if _, err = k.Wait(t.Context(), j.ID, time.Hour); api.FromError(err).Code != tt.want || len(*events) > 0 {
					t.Errorf("%v, want code %d; events %v", err, tt.want, *events)
				}
			})
		})
	}
}

func TestNamesAreNoPaths(t *testing.T) {
	k, _ := keeper(t, &slow{})
	for _, name := range []string{".", "..", ".hidden", "a/b", "/a", `a\b`, "a b", "ä", "a\x00"} {
		if _, err := k.Backup(t.Context(), name, 0, event.Event{}); api.FromError(err).Code != api.BadParam {
			t.Errorf("%q: %v, want badParam", name, err)
		}
	}
}

func TestStopGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, _ := keeper(t, &slow{})
		j, err := k.Backup(t.Context(), "b", 0, event.Event{})
		if err != nil {
			t.Fatal(err)
		}
		k.Stop()
		if _, err := k.Wait(t.Context(), j.ID, time.Hour); api.FromError(err).Code != api.ShuttingDown {
			t.Errorf("%v, want shuttingDown", err)
		}
		if _, err := k.Compact(t.Context(), 0, event.Event{}); api.FromError(err).Code != api.ShuttingDown {
			t.Errorf("%v, want shuttingDown", err)
		}
	})
}

// late is a store whose backup is done just as the server stops.
type late struct{ slow }

func (*late) Backup(ctx context.Context, _ string, _ bolt.CopyOptions) (bolt.Summary, error) {
	<-ctx.Done()
	return bolt.Summary{}, nil
}

func TestWhatIsDoneWhileTheServerStopsIsInTheLog(t *testing.T) {
	var recorded error
	k := upkeep.New(t.Context(), upkeep.Deps{
		Files: &late{}, Dir: t.TempDir(), Clock: clock.NewSystem(), Log: logging.Nop(),
		Record: func(ctx context.Context, e event.Event) error {
			if recorded = ctx.Err(); e.Kind != event.StoreBackedUp {
				t.Errorf("event %+v", e)
			}
			return recorded
		},
	})
	j, err := k.Backup(t.Context(), "b", 0, event.Event{})
	if err != nil {
		t.Fatal(err)
	}
	k.Stop()
	if j, err = k.Wait(t.Context(), j.ID, 0); err != nil || j.State != api.JobDone || recorded != nil {
		t.Errorf("%+v, %v, recorded: %v", j, err, recorded)
	}
}

// hooked is a clock that does something when it is looked at.
type hooked struct {
	clock.Clock
	look func()
}

func (h hooked) Now() time.Time {
	h.look()
	return h.Clock.Now()
}

// Once Stop has returned, the store may be closed: no job begins behind it.
func TestStopWaitsForAJobThatIsBeingBegun(t *testing.T) {
	var k *upkeep.Keeper
	var once sync.Once
	stopped := make(chan struct{})
	k = upkeep.New(t.Context(), upkeep.Deps{
		Files: &late{}, Dir: t.TempDir(), Log: logging.Nop(), Record: func(context.Context, event.Event) error { return nil },
		Clock: hooked{clock.NewSystem(), func() {
			once.Do(func() {
				go func() {
					k.Stop()
					close(stopped)
				}()
				for range 1000 {
					runtime.Gosched()
				}
				select {
				case <-stopped:
					t.Error("Stop has returned while a job was being begun")
				default:
				}
			})
		}},
	})
	if _, err := k.Backup(t.Context(), "", time.Minute, event.Event{}); err != nil {
		t.Error(err)
	}
	<-stopped
}

func TestInMemoryThereIsNoFile(t *testing.T) {
	k, _ := keeper(t, nil)
	if _, err := k.Backup(t.Context(), "", 0, event.Event{}); api.FromError(err).Code != api.Conflict {
		t.Errorf("%v, want a conflict", err)
	}
	k.Run(t.Context()) // returns
}

func TestAWastefulFileIsCompactedByItself(t *testing.T) {
	for name, tt := range map[string]struct {
		file, free int64
		want       int
	}{
		"a third is free":    {99 << 20, 34 << 20, 1},
		"two are in use":     {99 << 20, 33 << 20, 0},
		"small all the same": {64 << 20, 63 << 20, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &slow{file: tt.file, free: tt.free}
				k, events := keeper(t, s)
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
				defer cancel()
				k.Run(ctx)
				k.Stop()
				if s.compacted != tt.want || len(*events) != tt.want {
					t.Errorf("compacted %d times, events %+v; want %d", s.compacted, *events, tt.want)
				}
			})
		})
	}
}

// With a real store the file is where the pages say it is.
func TestABackupIsInItsFolder(t *testing.T) {
	dir := t.TempDir()
	st, err := bolt.Open(t.Context(), filepath.Join(dir, "sessiond.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	k := upkeep.New(t.Context(), upkeep.Deps{
		Files: st, Dir: dir, Clock: clock.NewSystem(), Log: logging.Nop(),
		Record: func(context.Context, event.Event) error { return errors.New("of no consequence") },
	})
	j, err := k.Backup(t.Context(), "b", time.Minute, event.Event{})
	k.Stop()
	if err := errors.Join(err, st.Close()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "backups", "b.db")); err != nil || info.Size() != j.FileBytes || info.Mode() != 0o600 {
		t.Errorf("%v, %v, want %d bytes", info, err, j.FileBytes)
	}
}
