package api

// JobState says where a job stands.
type JobState string

// The states of a job. One that failed has no state: whoever waits for it gets its
// error.
const (
	JobRunning JobState = "running"
	JobDone    JobState = "done"
)

// Job is a long piece of work on the store's file.
type Job struct {
	ID    string
	State JobState
	Done  int64 // bytes of keys and values that are copied so far
	Total int64 // of how many; a guess while the job runs

	// Of a backup.
	Name     string // of the file in the folder of backups
	Revision uint64 // that the backup holds, once it is done
	LogHead  string // as verify prints it, once it is done

	// Once it is done: the bytes of the file, and of the one that compacting replaced.
	FileBytes       int64
	FileBytesBefore int64
}
