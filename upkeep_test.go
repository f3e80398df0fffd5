package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sessiond/actions"
	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/event"
	"sessiond/internal/upkeep"
)

// stageUpkeep works on the file of a stage, which may have none: each job is done at
// once, but for a backup called slow, which runs until it is asked for again.
type stageUpkeep struct {
	clock  clock.Clock
	record actions.EventWriter

	mu        sync.Mutex
	jobs      []api.Job // backups
	compacted api.Job   // the last; zero: none yet
}

func (u *stageUpkeep) Backup(ctx context.Context, name string, _ time.Duration, by event.Event) (api.Job, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if name == "" {
		name = fmt.Sprintf("%s-%d", u.clock.Now().Format("20060102T150405Z"), len(u.jobs))
	}
	if err := upkeep.CheckName(name); err != nil {
		return api.Job{}, err
	}
	for _, j := range u.jobs {
		if j.Name == name {
			return api.Job{}, api.Errorf(api.AlreadyExists, "there is a backup of that name")
		}
	}
	j := api.Job{ID: "JOB" + name, State: api.JobRunning, Name: name, Done: 65536, Total: 262144}
	if name == "slow" {
		u.jobs = append(u.jobs, j)
		return j, nil
	}
	by.Kind, by.Time, by.Service = event.StoreBackedUp, u.clock.Now(), name
	_ = u.record(ctx, by) // what is done stays so without it
	u.jobs = append(u.jobs, j)
	return u.done(len(u.jobs) - 1), nil
}

func (u *stageUpkeep) done(i int) api.Job {
	j := &u.jobs[i]
	j.State, j.Done = api.JobDone, j.Total
	j.FileBytes, j.Revision, j.LogHead = 327680, 12, "12:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	return *j
}

func (u *stageUpkeep) Compact(ctx context.Context, _ time.Duration, by event.Event) (api.Job, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, j := range u.jobs {
		if j.State == api.JobRunning {
			return api.Job{}, api.Errorf(api.Conflict, "another job runs on the store's file: ask again once it has ended")
		}
	}
	by.Kind, by.Time = event.StoreCompacted, u.clock.Now()
	_ = u.record(ctx, by)
	u.compacted = api.Job{ID: "JOB", State: api.JobDone, Done: 262144, Total: 262144, FileBytesBefore: 1048576, FileBytes: 327680}
	return u.compacted, nil
}

func (u *stageUpkeep) Wait(_ context.Context, id string, _ time.Duration) (api.Job, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if id == u.compacted.ID {
		return u.compacted, nil
	}
	for i := range u.jobs {
		if u.jobs[i].ID == id {
			return u.done(i), nil
		}
	}
	return api.Job{}, api.Errorf(api.NotFound, "no such job is remembered: the server was restarted, or did many others since")
}
