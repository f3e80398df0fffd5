package actions

import (
	"context"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
)

// Upkeep is the long work on the store's file. It waits so long for the end of a job,
// which goes on all the same, and leaves an event of it that says who began it.
// Refusals are api.Errors without a pointer: NotFound for a job, AlreadyExists and
// BadParam for a name, Conflict while something else is done; a job that failed is its
// error.
type Upkeep interface {
	Backup(ctx context.Context, name string, wait time.Duration, by event.Event) (api.Job, error)
	Compact(ctx context.Context, wait time.Duration, by event.Event) (api.Job, error)
	Wait(ctx context.Context, id string, wait time.Duration) (api.Job, error)
}

// upkeep are the handlers of what is done to the store's file.
type upkeep struct{ Deps }

func (u *upkeep) table() []dispatch.Action {
	return []dispatch.Action{
		dispatch.Protected(dispatch.Spec{
			Name: "backupStore", APIs: admin(), Allow: dispatch.Holders(account.StoreBackup), Work: dispatch.Watching,
			Errors: []api.Code{api.AlreadyExists, api.Conflict, api.NotFound, api.StorageFull, api.StorageFailed},
			Doc: "Copies all data, as it is at one moment, into a new file in the folder backups of the data folder, verifies it, and answers once that is done or " +
				"waitSeconds are over. The job goes on without its caller; asked again with its jobId it is waited for further. " +
				"While one runs, others who ask for the same, or name nothing, join it.",
		}, u.backup),
		dispatch.Protected(dispatch.Spec{
			Name: "compactStore", APIs: admin(), Allow: dispatch.Holders(account.StoreBackup), Work: dispatch.Watching,
			Errors: []api.Code{api.Conflict, api.NotFound, api.StorageFull, api.StorageFailed},
			Doc: "Rewrites the file of the data into a new one, without what is free in it, and goes on with that. Everything else goes on meanwhile. " +
				"It answers as backupStore does. The server does it by itself where more than a third of a large file is free.",
		}, u.compact),
	}
}

// waiting is how the caller of a job waits for it.
type waiting struct {
	JobID       string `json:"jobId,omitzero" max:"64" doc:"Of an earlier answer: waits for that job further, and begins none."`
	WaitSeconds *int64 `json:"waitSeconds,omitzero" min:"0" max:"30" doc:"How long to wait for the end of the job; 10 unless named. In a batch it does not wait."`
}

func (w *waiting) time(c *dispatch.Call) time.Duration {
	switch {
	case c.InBatch:
		return 0
	case w.WaitSeconds == nil:
		const usually = 10 * time.Second
		return usually
	}
	return time.Duration(*w.WaitSeconds) * time.Second
}

type backupStoreParams struct {
	Name string `json:"name,omitzero" max:"100" doc:"Of the backup: letters, digits, '.', '_' and '-'; its file is called so, and .db. Absent: the time."`

	waiting
}

func (p *backupStoreParams) Validate() error {
	if p.JobID != "" && p.Name != "" {
		return bad("name", "must be absent beside jobId")
	}
	return nil
}

type backupStoreResult struct {
	JobID      string       `json:"jobId" doc:"The job's."`
	State      api.JobState `json:"state" doc:"running or done. One that failed is answered with its error."`
	Name       string       `json:"name" doc:"The backup's."`
	BytesDone  int64        `json:"bytesDone" doc:"How much of the data is copied."`
	BytesTotal int64        `json:"bytesTotal" doc:"How much there is; a guess while the job runs."`
	FileBytes  int64        `json:"fileBytes,omitzero" doc:"The size of the backup, once it is done."`
	Revision   uint64       `json:"revision,omitzero" doc:"The last change that it holds, once it is done."`
	LogHead    string       `json:"logHead,omitzero" doc:"The head of its log, once it is done, as sessiond verify prints it."`
}

func (u *upkeep) backup(ctx context.Context, c *dispatch.Call, who *session.Caller, p backupStoreParams) (backupStoreResult, error) {
	var j api.Job
	var err error
	if p.JobID != "" {
		j, err = u.wait(ctx, c, &p.waiting, func(j api.Job) bool { return j.Name != "" })
	} else {
		j, err = u.Upkeep.Backup(ctx, p.Name, p.time(c), u.by(c, who))
	}
	return backupStoreResult{j.ID, j.State, j.Name, j.Done, j.Total, j.FileBytes, j.Revision, j.LogHead}, about(err, map[api.Code]string{
		api.AlreadyExists: "/params/name", api.BadParam: "/params/name", api.NotFound: "/params/jobId",
	})
}

type compactStoreParams struct {
	waiting
}

type compactStoreResult struct {
	JobID           string       `json:"jobId" doc:"The job's."`
	State           api.JobState `json:"state" doc:"running or done. One that failed is answered with its error."`
	BytesDone       int64        `json:"bytesDone" doc:"How much of the data is copied."`
	BytesTotal      int64        `json:"bytesTotal" doc:"How much there is; a guess while the job runs."`
	FileBytesBefore int64        `json:"fileBytesBefore,omitzero" doc:"The size of the file that was replaced, once the job is done."`
	FileBytes       int64        `json:"fileBytes,omitzero" doc:"The size of the new file, once the job is done."`
}

func (u *upkeep) compact(ctx context.Context, c *dispatch.Call, who *session.Caller, p compactStoreParams) (compactStoreResult, error) {
	var j api.Job
	var err error
	if p.JobID != "" {
		j, err = u.wait(ctx, c, &p.waiting, func(j api.Job) bool { return j.Name == "" })
	} else {
		j, err = u.Upkeep.Compact(ctx, p.time(c), u.by(c, who))
	}
	return compactStoreResult{j.ID, j.State, j.Done, j.Total, j.FileBytesBefore, j.FileBytes}, about(err, map[api.Code]string{api.NotFound: "/params/jobId"})
}

// wait waits for a job of the action that is asked; only a backup has a name.
func (u *upkeep) wait(ctx context.Context, c *dispatch.Call, w *waiting, own func(api.Job) bool) (api.Job, error) {
	j, err := u.Upkeep.Wait(ctx, w.JobID, w.time(c))
	if j.ID != "" && !own(j) {
		return api.Job{}, api.Errorf(api.NotFound, "that job is of another action")
	}
	return j, err
}

// by is an event that says who asks.
func (u *upkeep) by(c *dispatch.Call, who *session.Caller) event.Event {
	e := event.Event{By: u.Sessions.Actor(who)}
	if c.Address.IsValid() {
		e.ClientIPAddress = c.Address.String()
	}
	return e
}
