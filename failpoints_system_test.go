//go:build linux && system

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"sessiond/internal/campaign"
	"sessiond/internal/cli"
	"sessiond/internal/faultfs"
	"sessiond/store/bolt"
)

// failpoint is a call of some kind while something is done: one of the first Nth.
type failpoint struct {
	doing doing
	call  faultfs.Call
}

type doing string

const (
	loading    doing = "loading"
	backingUp  doing = "backing up"
	compacting doing = "compacting"
	upgrading  doing = "upgrading"
	repairing  doing = "starting after a failed disk"
	restoring  doing = "restoring"
)

// failpoints begin with one of everything that is done.
func failpoints() []failpoint {
	const file, draft = cli.DataFile, ".new-"
	at := func(d doing, on faultfs.Op, most int, of string) failpoint {
		return failpoint{d, faultfs.Call{On: on, Nth: most, Of: of}}
	}
	return []failpoint{
		at(compacting, faultfs.Rename, 1, draft),
		at(upgrading, faultfs.Rename, 1, draft),
		at(loading, faultfs.Sync, 40, file),
		at(restoring, faultfs.Rename, 1, draft),
		at(backingUp, faultfs.Link, 1, draft),
		at(repairing, faultfs.Rename, 1, draft),
		at(loading, faultfs.Write, 60, file),
		at(loading, faultfs.Truncate, 1, file),
		at(backingUp, faultfs.Write, 8, draft),
		at(backingUp, faultfs.Sync, 6, draft),
		at(compacting, faultfs.Write, 8, draft),
		at(compacting, faultfs.Sync, 6, draft),
		at(compacting, faultfs.Truncate, 2, draft),
		at(upgrading, faultfs.Write, 8, file),
		at(upgrading, faultfs.Sync, 6, file),
		at(repairing, faultfs.Unlink, 2, file),
		at(restoring, faultfs.Link, 1, file),
		at(restoring, faultfs.Sync, 8, file),
	}
}

const (
	killed, failed, cutOff = 0, 1, 2
	ways                   = 3
	ofPoint                = 9 // trials

	lostBackups = "finished backups that are gone or damaged"
	leftBehind  = "drafts left behind"
)

// At a call to the disk in the middle of something the process is killed, or the call
// fails, or the power goes. What was acknowledged is there, and what was under way can
// be done again.
func TestSystemCampaignFailpoints(t *testing.T) {
	var template nthTemplate
	points := failpoints()
	campaign.Run(t, campaign.Plan{
		Name: "kill, failure or power cut at a call", Trials: ofPoint * len(points), Few: 6,
		Must: slices.Concat(cycleMust(), []string{
			falselyAcked, hangs, lostBackups, leftBehind, "sessions alive", "ended or rotated keys alive", "keys lost",
		}),
		About: fmt.Sprintf("%d points, each a kind of call while a server is loaded, backed up, compacted, upgraded, started after a failed disk or restored: kill -9, EIO or a torn power cut "+
			"at one of the first such calls; then a start, more load, a power cut, a start", len(points)),
	}, func(r *campaign.Trial) {
		if template.data == "" {
			template.make(t)
		}
		b := &breakage{Trial: r, nthTemplate: &template, f: newFaulty(r.T, template.data), at: points[r.N%len(points)], way: (r.N + r.N/len(points)) % ways}
		b.home = template.at(b.f.at)
		b.l = newLedger(template.staff)
		b.l.faulty = true
		defer b.f.Unmount()
		b.run()
	})
}

// breakage is a trial.
type breakage struct {
	*campaign.Trial
	*nthTemplate

	home home
	f    *faulty
	l    *ledger
	at   failpoint
	way  int

	met <-chan struct{}
}

func (b *breakage) run() {
	defer func() {
		for figure, count := range b.l.figures {
			b.Count(figure, count)
		}
		b.Count("acknowledged changes", b.l.creates+b.l.ends+b.l.changes)
		if b.T.Failed() {
			b.T.Logf("%s, call %+v, way %d", b.at.doing, b.at.call, b.way)
		}
	}()
	p, done := opened(b.Trial, b.T, b.home), "" // a backup
	switch b.at.doing {
	case loading:
		if b.at.call.On == faultfs.Truncate { // the file grows next
			b.upkeep(p, "compactStore")
		}
		b.underLoad(p, "")
	case backingUp:
		done = b.underLoad(p, "backupStore")
	case compacting:
		b.underLoad(p, "compactStore")
	case upgrading:
		b.start(p, func(file string) { asFormat1(b.T, file) })
	case repairing:
		b.start(p, func(file string) {
			for _, left := range []string{".suspect", ".new-copy"} {
				if err := os.WriteFile(file+left, []byte("left\n"), 0o600); err != nil {
					b.T.Fatal(err)
				}
			}
		})
	case restoring:
		b.restore(p)
		return
	}
	p = opened(b.Trial, b.T, b.home)
	b.l.check(b.T, p)
	if rand.N(2) == 0 { // else what was shown has to be there, though nothing was written since
		b.l.load(b.T, p, againForLoad, p.kill)
	}
	p.kill()
	b.clean()
	b.f.cut(faultfs.All, func() {})
	b.backups(done)
	whole(b.Trial, b.home)
	b.compare(b.Trial, b.home, b.l, false)
}

// arm lets the next such call be the one.
func (b *breakage) arm() {
	call := b.at.call
	call.Nth = 1 + rand.N(call.Nth)
	switch b.way {
	case killed:
		b.met, _ = b.f.Hold(call)
	case failed:
		b.met = b.f.Fail(call, syscall.EIO)
	case cutOff:
		b.met = b.f.CutAt(call, faultfs.Some)
	}
}

// await waits for the call, or until what it was to come from is over.
func (b *breakage) await(over <-chan struct{}, patience time.Duration) {
	select {
	case <-b.met:
	case <-over:
	case <-time.After(patience):
	}
	select {
	case <-b.met:
		b.Count("calls at which it broke", 1)
	default:
		b.Count(notMet, 1)
	}
	if b.way == failed { // what comes of it
		select {
		case <-over:
		case <-time.After(afterFault):
		}
	}
}

// end kills a process, and takes the power if it is that which broke.
func (b *breakage) end(process *os.Process, gone <-chan struct{}) {
	_ = process.Kill() // it may be gone already
	b.f.Heal()
	<-gone
	if b.way == cutOff {
		b.f.cut(faultfs.Some, func() {})
	}
}

// underLoad breaks a loaded server, which is asked for something once if there is an
// action for it. It returns the name of a finished backup.
func (b *breakage) underLoad(p *process, action string) (done string) {
	b.arm()
	over := make(chan struct{})
	b.l.loadUntil(b.T, p, func() {
		go func() {
			if action != "" {
				done = b.upkeep(p, action)
				close(over)
			}
		}()
		b.await(over, faultWithin)
	}, func() { b.end(p.cmd.Process, p.exited) })
	if time.Duration(b.l.slowest.Load()) > hang {
		b.Count(hangs, 1)
	}
	if action != "" {
		<-over
	}
	return done
}

// upkeep asks for a job and waits for its end. It returns its name if it was done.
func (b *breakage) upkeep(p *process, action string) (name string) {
	c := newClient(p, b.l.staff.admin.AuthToken)
	defer c.close()
	var job struct{ State, Name string }
	if err := c.call(context.WithoutCancel(b.T.Context()), action, params{"waitSeconds": 30}, &job); err != nil || job.State != "done" {
		return "" // it was to break
	}
	return job.Name
}

// start breaks a start on data that was loaded, then changed.
func (b *breakage) start(p *process, change func(file string)) {
	b.l.load(b.T, p, againForLoad, p.kill)
	b.f.aside(func(data string) { change(filepath.Join(data, cli.DataFile)) })
	b.arm()
	p = b.home.launch(b.T)
	over := make(chan struct{})
	go func() {
		defer close(over)
		select {
		case <-p.output.address:
		case <-p.exited:
		}
	}()
	b.await(over, startWithin)
	b.end(p.cmd.Process, p.exited)
}

// clean fails if something is left of what broke, or is not what it should be.
func (b *breakage) clean() {
	b.T.Helper()
	file := filepath.Join(b.home.data, cli.DataFile)
	left, err := filepath.Glob(file + ".new-*")
	if err != nil {
		b.T.Fatal(err)
	}
	for _, one := range left {
		b.T.Log(one)
		b.Count(leftBehind, 1)
	}
	if _, err := os.Stat(file + ".suspect"); b.at.doing == repairing && !errors.Is(err, os.ErrNotExist) {
		b.Count(leftBehind, 1)
	}
	if b.at.doing == upgrading {
		before, err := bolt.Verify(b.T.Context(), file+".pre-upgrade-1", nil)
		if err != nil || before.Format != 1 {
			b.T.Logf("the copy before the upgrade is of format %d: %v", before.Format, err)
			b.Count(lostBackups, 1)
		}
	}
}

// backups checks all that have a name, and that one is among them if it is named.
func (b *breakage) backups(done string) {
	b.T.Helper()
	all, err := filepath.Glob(filepath.Join(b.home.data, "backups", "*.db"))
	if err != nil {
		b.T.Fatal(err)
	}
	if done != "" && !slices.Contains(all, filepath.Join(b.home.data, "backups", done+".db")) {
		b.T.Logf("%s is not among %q", done, all)
		b.Count(lostBackups, 1)
	}
	for _, one := range all {
		if _, err := bolt.Verify(b.T.Context(), one, nil); err != nil {
			b.T.Logf("%s: %v", one, err)
			b.Count(lostBackups, 1)
		}
	}
}

// restore breaks the restore of a backup from between two loads. Afterwards the data
// is that of before or that of the backup, and the next restore succeeds.
func (b *breakage) restore(p *process) {
	b.l.load(b.T, p, againForLoad, p.kill)
	backup := filepath.Join(b.T.TempDir(), "backup.db")
	b.f.aside(func(data string) { copyFile(b.T, filepath.Join(data, cli.DataFile), backup) })
	p = opened(b.Trial, b.T, b.home)
	b.l.check(b.T, p)
	inBackup := map[*record]int{}
	for _, r := range b.l.free {
		inBackup[r] = len(r.replaced)
	}
	known := b.journal()
	b.l.load(b.T, p, againForLoad, p.kill)
	journal := strings.TrimPrefix(b.journal(), known)

	b.arm()
	cmd := b.home.restoring(b.T.Context(), backup, "--yes")
	if err := cmd.Start(); err != nil {
		b.T.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it was to break
		close(gone)
	}()
	b.await(gone, startWithin)
	b.end(cmd.Process, gone)

	p = opened(b.Trial, b.T, b.home)
	if valid(b.T, p, b.l.staff.admin.AuthToken) {
		b.Count("restores that had not happened", 1)
		b.l.check(b.T, p)
	} else {
		b.Count("restores that had happened", 1)
		compare(b.Trial, p, b.l, inBackup, "journal", journal)
	}
	p.kill()
	b.clean()
	code, done, stderr := b.home.restore(b.T, backup, "--yes")
	if code != 0 || done.Keys != "journal" {
		b.T.Fatalf("the next restore: exit code %d, keys %q: %s", code, done.Keys, stderr)
	}
	whole(b.Trial, b.home)
	p = opened(b.Trial, b.T, b.home)
	compare(b.Trial, p, b.l, inBackup, "journal", journal)
	p.kill()
}

func (b *breakage) journal() string {
	b.T.Helper()
	text, err := os.ReadFile(filepath.Join(b.home.data, cli.JournalFile))
	if err != nil {
		b.T.Fatal(err)
	}
	return string(text)
}

// aside changes a data folder while nobody uses it and all that was not durable is gone.
func (f *faulty) aside(change func(data string)) {
	f.Cut(faultfs.All)
	f.Unmount()
	change(home{}.at(f.backing).data)
	f.mount()
}

// asFormat1 makes a file one as the first program wrote it: its state says neither its
// format nor its identity.
func asFormat1(t *testing.T, file string) {
	t.Helper()
	const bucket, name = "meta", "/state"
	const head, first = 1 + 8, 8 + 8 + 1 + 8 + 32 // of a value; what the state began with
	db, err := bbolt.Open(file, 0, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucket))
		state := slices.Clone(b.Get([]byte(name))[:head+first])
		sum := crc32.Checksum(slices.Concat([]byte(bucket+name), state), crc32.MakeTable(crc32.Castagnoli))
		return b.Put([]byte(name), binary.BigEndian.AppendUint32(state, sum))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if sum, err := bolt.Verify(t.Context(), file, nil); err != nil || sum.Format != 1 {
		t.Fatalf("it is of format %d: %v", sum.Format, err)
	}
}
