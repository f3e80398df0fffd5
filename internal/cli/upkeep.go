package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/internal/event"
	"sessiond/internal/logging"
	"sessiond/internal/upkeep"
	"sessiond/internal/wire"
	"sessiond/store"
	"sessiond/store/bolt"
)

const whoDoesIt = `
With --url or $` + urlVariable + `, or while a server uses the data folder, that server is
asked (the one at ` + defaultURL + ` unless --url says otherwise), with
the token of an account that holds sessiond.store.backup; else it is done here, in
the data folder of a server that is stopped.`

func (p *Program) backup() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup [NAME]",
		Short: "Copy the data into a file, while the server runs",
		Long: `Copies all data, as it is at one moment, into a new file, verifies that, and prints
what it holds. The file is DIR/backups/NAME.db in the data folder, and NAME the time
if it is left out. It holds everything that was acknowledged before the backup began;
sessions and keys stand in it without their tokens, passwords as hashes.
` + whoDoesIt + `

--out names another file, which the server cannot be asked for: it is for a server that
is stopped. No file is ever overwritten.`,
		Example: `  sessiond backup
  sessiond backup before-the-move --token-file /run/secrets/backup-key
  sessiond backup --data /var/lib/sessiond --out /mnt/archive/sessiond.db`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("backup takes one name")
			}
			return nil
		},
		RunE: p.runBackup,
	}
	addUpkeep(cmd)
	cmd.Flags().String("out", "", "with a server that is stopped: write `FILE`")
	_ = cmd.MarkFlagFilename("out")
	return cmd
}

func (p *Program) compact() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "compact",
		Short: "Rewrite the data's file without what is free in it, while the server runs",
		Long: `Rewrites the file of the data into a new one, which takes its place, without what is
free in it. A running server goes on meanwhile; it does so by itself where more than a
third of a large file is free.
` + whoDoesIt,
		Example: `  sessiond compact
  sessiond compact --data /var/lib/sessiond`,
		Args: noArgs,
		RunE: p.runCompact,
	}
	addUpkeep(cmd)
	return cmd
}

func addUpkeep(cmd *cobra.Command) {
	addConfigFlag(cmd)
	addSettings(cmd, "data")
	addQuestion(cmd)
	addOutput(cmd, formatTable, formatJSON)
}

func (p *Program) runBackup(cmd *cobra.Command, args []string) error {
	params := struct {
		Name string `json:"name,omitzero"`
		Wait int    `json:"waitSeconds"`
	}{Wait: int(poll.Seconds())}
	if len(args) > 0 {
		params.Name = args[0]
	}
	out, given := said(cmd, "out", "")
	_, asked := said(cmd, "url", urlVariable)
	switch {
	case given != "" && out == "":
		return usagef("name a new file with --out")
	case given != "" && params.Name != "":
		return usagef("--out names the file: leave out the name")
	case given != "" && asked != "":
		return usagef("--out writes a file here, but %s has a server asked: leave out one of them", asked)
	}
	j, err := p.upkeep(cmd, "backupStore", &params, func(ctx context.Context, k *upkeep.Keeper, st *bolt.Store, tell bolt.Progress) (api.Job, error) {
		if given == "" {
			return k.Backup(ctx, params.Name, poll, event.Event{})
		}
		sum, err := st.Backup(ctx, out, bolt.CopyOptions{Report: tell})
		if errors.Is(err, bolt.ErrExists) {
			err = errors.New("there is a file of that name: name another with --out, or move it away")
		}
		return api.Job{Name: out, FileBytes: sum.Size, Revision: uint64(sum.Rev), LogHead: sum.Head.String()}, err
	})
	if err != nil {
		return err
	}
	return printDone(cmd, &struct {
		Name      string `json:"name"`
		FileBytes int64  `json:"fileBytes"`
		Revision  uint64 `json:"revision"`
		LogHead   string `json:"logHead"`
	}{j.Name, j.FileBytes, j.Revision, j.LogHead}, []table.Row{
		{"backup", printable(j.Name)}, {"bytes", j.FileBytes}, {"revision", j.Revision}, {"log head", printable(j.LogHead)},
	}, "OK: the backup is complete and verified.")
}

func (p *Program) runCompact(cmd *cobra.Command, _ []string) error {
	params := struct {
		Wait int `json:"waitSeconds"`
	}{int(poll.Seconds())}
	j, err := p.upkeep(cmd, "compactStore", &params, func(ctx context.Context, k *upkeep.Keeper, _ *bolt.Store, _ bolt.Progress) (api.Job, error) {
		return k.Compact(ctx, poll, event.Event{})
	})
	if err != nil {
		return err
	}
	return printDone(cmd, &struct {
		FileBytesBefore int64 `json:"fileBytesBefore"`
		FileBytes       int64 `json:"fileBytes"`
	}{j.FileBytesBefore, j.FileBytes}, []table.Row{{"bytes before", j.FileBytesBefore}, {"bytes", j.FileBytes}}, "OK: the file is compact.")
}

func printDone(cmd *cobra.Command, done any, rows []table.Row, ok string) error {
	if format, _ := output(cmd, formatTable); format == formatJSON { // upkeep has looked whether it can be understood
		return printJSON(cmd, done)
	}
	return printLine(cmd, draw(nil, rows)+"\n\n"+ok)
}

// poll is how long one question about a job waits: so often is its progress seen.
const poll = time.Second

// upkeep has a job done by a server, or here where none has the data, and waits for
// its end.
func (p *Program) upkeep(cmd *cobra.Command, action string, params any,
	job func(ctx context.Context, k *upkeep.Keeper, st *bolt.Store, tell bolt.Progress) (api.Job, error),
) (j api.Job, err error) {
	if _, err := output(cmd, formatTable); err != nil {
		return j, err
	}
	st, dir, err := stopped(cmd)
	if err != nil {
		return j, err
	}
	report, wipe := progress(cmd)
	defer wipe()
	tell := func(done, total uint64) {
		if report != nil {
			report(done, total)
		}
	}
	ctx := cmd.Context()
	if st == nil {
		if _, out := said(cmd, "out", ""); out != "" {
			return j, fmt.Errorf("a server has the data, and keeps its backups in the folder %s beside them: leave out --out, and copy the file from there", upkeep.Folder)
		}
		ask, err := p.question(cmd)
		if err != nil {
			return j, err
		}
		ask.timeout += poll // so long the server waits as it is asked to
		return follow(ctx, func() (api.Job, error) { return ask.job(ctx, action, params) }, func(id string) (api.Job, error) {
			return ask.job(ctx, action, &struct {
				JobID string `json:"jobId"`
				Wait  int    `json:"waitSeconds"`
			}{id, int(poll.Seconds())})
		}, tell)
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	k := upkeep.New(ctx, upkeep.Deps{Files: st, Dir: dir, Clock: clock.NewSystem(), Log: logging.Nop(), Record: func(ctx context.Context, e event.Event) error {
		var tx store.Tx
		event.Append(&tx, e)
		_, err := st.Commit(ctx, tx)
		return err
	}})
	defer k.Stop()
	return follow(ctx, func() (api.Job, error) { return job(ctx, k, st, tell) }, func(id string) (api.Job, error) { return k.Wait(ctx, id, poll) }, tell)
}

// follow waits for the end of a job.
func follow(ctx context.Context, begin func() (api.Job, error), wait func(id string) (api.Job, error), tell bolt.Progress) (api.Job, error) {
	j, err := begin()
	for err == nil && j.State == api.JobRunning {
		tell(uint64(j.Done), uint64(j.Total)) //nolint:gosec // sizes
		if ctx.Err() != nil {
			return j, errors.New("interrupted")
		}
		j, err = wait(j.ID)
	}
	return j, err
}

// stopped opens the store of the data folder, or returns nil if a server is to be
// asked.
func stopped(cmd *cobra.Command) (st *bolt.Store, dir string, err error) {
	if _, name := said(cmd, "url", urlVariable); name != "" {
		return nil, "", nil
	}
	path, err := dataFile(cmd)
	if err != nil {
		if _, name := said(cmd, "data", dataVariable); name != "" {
			return nil, "", err
		}
		return nil, "", nil // who asks may well be on another machine
	}
	st, err = bolt.Open(cmd.Context(), path, bolt.Options{})
	if errors.Is(err, bolt.ErrLocked) {
		return nil, "", nil
	}
	return st, filepath.Dir(path), err
}

// job asks the server for a job.
func (c *client) job(ctx context.Context, action string, params any) (j api.Job, err error) {
	text, err := wire.Marshal(params)
	if err != nil {
		return j, err
	}
	a, err := c.send(ctx, request{API: api.Admin, Action: action, Params: text})
	if err != nil {
		return j, err
	}
	if err := a.failure(); err != nil {
		return j, err
	}
	if a.result == nil {
		return j, fmt.Errorf("what answers at %s says nothing of the job", c.url)
	}
	number := func(member string) int64 { n, _ := intOf(a.result.Member(member)); return n }
	word := func(member string) string { return textOf(a.result.Member(member)) }
	return api.Job{
		ID: word("jobId"), State: api.JobState(word("state")), Done: number("bytesDone"), Total: number("bytesTotal"),
		Name: word("name"), Revision: uint64(number("revision")), LogHead: word("logHead"), //nolint:gosec // not negative
		FileBytes: number("fileBytes"), FileBytesBefore: number("fileBytesBefore"),
	}, nil
}
