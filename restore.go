package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sessiond/internal/account"
	"sessiond/internal/cli"
	"sessiond/internal/clock"
	"sessiond/internal/config"
	"sessiond/internal/event"
	"sessiond/internal/logging"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/bolt"
)

// openJournal opens the journal of revocations of a store, which follows that from now
// on.
func openJournal(ctx context.Context, st store.Store, path, server string, failed func(error)) (*event.Journal, error) {
	return event.OpenJournal(ctx, path, event.JournalDeps{
		Store: st, Server: server, Failed: failed,
		Left: func(ctx context.Context, e *event.Event) ([]byte, error) { return account.Left(ctx, st, e) },
	})
}

// followed has the journal of revocations follow the store of a server, until the
// returned function is called.
func followed(ctx context.Context, st store.Store, c *config.Config, server string, log *logging.Logger) (end func() error, err error) {
	if c.Storage.Type == "memory" { // of which there is no backup
		return func() error { return nil }, nil
	}
	j, err := openJournal(ctx, st, cli.JournalPath(c), server, func(err error) { log.Error("journal of revocations", logging.Err(err)) })
	if errors.Is(err, event.ErrJournal) {
		return nil, fmt.Errorf("%w; put a backup in place with sessiond restore, which ends what must not live again, or move the journal away", err)
	}
	if err != nil {
		return nil, err
	}
	return func() error { return j.Close(context.WithoutCancel(ctx)) }, nil
}

// positionsPerSecond is more than what a store appends to its log. With as many for
// each second since 1970, the positions after a restore are beyond all that were ever
// given, whatever is known of them.
const positionsPerSecond = 1 << 20

// restore puts a backup in the place of the data of a server that does not run.
func restore(ctx context.Context, o cli.RestoreOptions) (_ *cli.Restored, err error) {
	path := filepath.Join(o.Dir, cli.DataFile)
	if o.DryRun {
		var dir string
		if dir, err = os.MkdirTemp("", "sessiond-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		if o.Journal, err = copyAside(o.Journal, dir); err != nil {
			return nil, err
		}
	}
	there, err := completeJournal(ctx, path, o.Journal)
	if err != nil {
		return nil, err
	}
	r, sum, err := bolt.Replace(ctx, o.File, path, o.Report)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()

	machine := clock.NewSystem().Now()
	beyond := max(there.beyond, uint64(machine.Unix())*positionsPerSecond) //nolint:gosec // after 1970
	st, err := bolt.Open(ctx, r.Path(), bolt.Options{Beyond: beyond})
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	defer func() { err = errors.Join(err, st.Close()) }() // after Install: until then it holds the lock
	done := &cli.Restored{DryRun: o.DryRun, LogHead: fmt.Sprintf("%d:%x", sum.Head.Seq, sum.Head.Hash)}
	if done.LastChange, err = lastChange(ctx, st); err != nil {
		return nil, err
	}
	w := session.Restoration{Store: st, Realms: o.Realms}
	doubt := there.doubt
	if doubt == nil {
		w.Journal, doubt = revoked(ctx, o.Journal, st, sum.Head)
	}
	switch {
	case doubt == nil:
		w.Keys = session.KeysFromJournal
	case !errors.Is(doubt, event.ErrJournal):
		return nil, doubt
	case o.AcceptKeys:
		w.Keys, done.Journal = session.KeysAccepted, doubt.Error()
	default:
		w.Keys, done.Journal = session.KeysEnded, doubt.Error()
	}
	if w.Now, err = furthest(ctx, st, there.told, lastNoted(w.Journal)); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	restored, err := session.Restore(ctx, w)
	if err == nil {
		err = event.KeepMark(ctx, st, w.Now)
	}
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	done.Keys, done.SessionsEnded, done.NoAdministrator = string(w.Keys), restored.Sessions, restored.NoAdministrator
	done.KeysEnded, done.KeysRotated, done.KeysLiving = restored.KeysEnded, restored.KeysRotated, restored.Keys-restored.KeysEnded
	done.Accounts, done.Roles = restored.Accounts, restored.Roles
	if o.DryRun {
		return done, nil
	}
	kept := path + ".before-restore-" + machine.Format("20060102T150405Z")
	if err := r.Install(kept); err != nil {
		return nil, err
	}
	if _, err := os.Stat(kept); err == nil {
		done.Kept = kept
	}
	return done, nil
}

// copyAside copies the journal, if there is one, into a folder.
func copyAside(path, dir string) (string, error) {
	aside := filepath.Join(dir, cli.JournalFile)
	from, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return aside, nil
	}
	if err != nil {
		return "", err
	}
	defer func() { _ = from.Close() }() // nothing was written to it
	to, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(to, from)
	return aside, errors.Join(err, to.Close())
}

// replaced is what is known of a store that a backup is to take the place of.
type replaced struct {
	beyond uint64    // above all its positions and revisions
	told   time.Time // the latest over it
	doubt  error     // why the journal does not know all that it does
}

// completeJournal takes over into the journal what it lacks of the store at path, if
// that can be read.
func completeJournal(ctx context.Context, path, journal string) (there replaced, err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return there, nil
	}
	st, err := bolt.Open(ctx, path, bolt.Options{ReadOnly: true})
	if errors.Is(err, bolt.ErrLocked) || ctx.Err() != nil {
		return there, err
	}
	if err != nil {
		return there, nil // it is damaged: the journal is all there is
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if there.told, err = event.Mark(ctx, st); err != nil {
		return there, err
	}
	server, err := serverOf(ctx, st)
	if err != nil || server == "" {
		return there, err
	}
	last, err := store.ReadLogBack(ctx, st, 0, 1)
	if err != nil || len(last) == 0 {
		return there, err
	}
	head := store.Head{Seq: last[0].Seq, Hash: last[0].Hash}
	there.beyond = max(uint64(st.Rev()), head.Seq)
	j, err := openJournal(ctx, st, journal, server, func(error) {})
	switch {
	case err == nil:
		_ = j.Close(ctx) // what could not be written is told by what reads it
		return there, nil
	case !errors.Is(err, event.ErrJournal):
		return there, err
	}
	// A store that was put in place by hand knows less than the journal.
	_, there.doubt = event.Revoked(ctx, journal, server, st, head)
	return there, nil
}

// serverOf returns the identifier that a server keeps with its data; empty: none has
// started on it yet.
func serverOf(ctx context.Context, st store.Store) (string, error) {
	item, err := st.Get(ctx, hostKey)
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return string(item.Value), err
}

// revoked returns what the journal has noted since a backup.
func revoked(ctx context.Context, path string, backup store.Store, head store.Head) ([]event.Revocation, error) {
	server, err := serverOf(ctx, backup)
	if err != nil {
		return nil, err
	}
	return event.Revoked(ctx, path, server, backup, head)
}

// lastNoted returns when the last change happened that a journal tells of; zero: it
// tells of none.
func lastNoted(journal []event.Revocation) time.Time {
	for i := range slices.Backward(journal) {
		if at := journal[i].Event.Time; !at.IsZero() {
			return at
		}
	}
	return time.Time{}
}

// lastChange returns when the newest event of a store happened; zero: it has none.
func lastChange(ctx context.Context, st store.Store) (time.Time, error) {
	last, err := store.ReadLogBack(ctx, st, 0, 1)
	if err != nil || len(last) == 0 {
		return time.Time{}, err
	}
	e, err := event.Decode(last[0])
	return e.Time, err
}
