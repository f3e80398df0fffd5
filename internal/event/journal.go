package event

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"sessiond/internal/wire"
	"sessiond/store"
)

// The journal of revocations stands outside the store, so that a backup which takes
// the store's place does not bring back what was taken away since. It is a file with
// a line for each event that takes something from an API key or an account: the
// event as it is in the log, and what the change left where the event does not say
// that. A line is durable before the change is answered. No line holds a secret.
//
// The store's log is the truth: what the journal lacks of it is taken from there, at
// each start and whenever a line could not be written. As long as one is missing the
// file ends in the middle of a line, and nobody relies on it.

// checkpoint is how many events may pass without a line; then one says how far the log
// was seen, so that the next start need not look through all of them.
const checkpoint = 100_000

// retryEvery is how many events pass before lines that could not be written are tried
// again, if none comes that has to be written.
const retryEvery = 256

// revokes reports whether an event has a line in the journal. It looks at each event
// of the log, so it reads as little of it as it can.
func revokes(data []byte) bool {
	const kind, permanent = `,"kind":"`, `"permanentSession":true` // quotes in texts are escaped
	_, rest, _ := bytes.Cut(data, []byte(kind))
	name, _, _ := bytes.Cut(rest, []byte(`"`))
	switch Kind(name) {
	case SessionEnded, SessionRotated, AllSessionsEnded:
		return bytes.Contains(rest, []byte(permanent))
	case AccountAltered, RoleAltered:
		return !altersText(data)
	case AccountDropped, AccountSessionsEnded, PasswordChanged, RoleDropped, StoreRestored:
		return true
	case SessionCreated, SessionAltered, SessionExpired, SessionEvicted, SessionExpiring, SessionRemoved,
		AccountCreated, LoginFailed, RoleCreated, ServiceManaged, WebhookReplayed,
		StoreBackedUp, StoreCompacted, StoreSalvaged, ClockJumped, ClockAccepted:
	}
	return false
}

// altersText reports whether an alteration is of nothing but what people or
// applications keep with an account or a role.
func altersText(data []byte) bool {
	e, err := Decode(store.Entry{Data: data})
	return err == nil && !slices.ContainsFunc(e.Changed, func(name string) bool {
		return name != "accountDescription" && name != "description" && name != "metadata"
	})
}

// JournalDeps are what a Journal works with.
type JournalDeps struct {
	Store  store.Store
	Server string // the identifier that the server keeps with its data

	// Left returns what a change left that its event does not tell, as JSON; nil:
	// nothing. It is asked when the change is durable, or later.
	Left func(context.Context, *Event) ([]byte, error)

	// Failed is told of lines that could not be written, and what was wrong with the file.
	Failed func(error)
}

// A Journal follows the log of a store.
type Journal struct {
	deps JournalDeps
	stop func()

	mu      sync.Mutex // guards what follows; held while a line is written
	file    disk
	written mark   // what is durable
	next    mark   // what it will be with draft
	draft   []byte // lines that are to be written
	opening *line  // with which it begins, until that is durable
	behind  bool   // something could not be written
	torn    bool   // the line break behind the last line is not there, so that nobody relies on the file
	passed  int    // events without a line since the last
}

// disk is what is done to the file once it was read.
type disk interface {
	io.WriterAt
	Sync() error
	Truncate(size int64) error
	Close() error
}

// mark is a place in the file.
type mark struct {
	size int64
	sum  string     // of the line before it
	at   store.Head // that the line before it names
}

// OpenJournal opens the file at path, made if there is none, completes it from the
// store's log, and follows that from now on. A line that was changed, and all that
// follow it, are written anew from the log; the file as it was is kept with ".damaged"
// behind its name. An error that wraps ErrJournal says that the journal is of another
// store, or knows what this one does not: the store is an older copy.
func OpenJournal(ctx context.Context, path string, d JournalDeps) (*Journal, error) {
	j := &Journal{deps: d, stop: func() {}}
	if err := j.open(ctx, path); err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx) // of the watcher: until Close
	for {
		rev := d.Store.Rev()
		if err := j.catchUp(ctx); err != nil {
			j.fail(err)
		}
		var err error
		j.stop, err = d.Store.Watch(rev, func(c store.Change) { j.apply(ctx, &c) })
		if errors.Is(err, store.ErrGap) {
			continue // there was a commit in between
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("follow the store: %w", err), j.file.Close())
		}
		return j, nil
	}
}

func (j *Journal) open(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("the journal of revocations cannot be opened: %w", err)
	}
	j.file = f
	if err = j.load(f); err == nil {
		err = j.begin(ctx)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return nil
}

// load reads the file, and cuts off what is not as it was written. Until what that
// was is there again, the file ends in the middle of a line.
func (j *Journal) load(f *os.File) error {
	last, first, err := scan(f, nil)
	switch {
	case errors.Is(err, errTorn), errors.Is(err, errChanged):
		j.deps.Failed(fmt.Errorf("%s: %w: what is missing is taken from the log of the store", f.Name(), err))
		if errors.Is(err, errChanged) {
			if err := keepDamaged(f); err != nil {
				return err
			}
		}
		j.torn = last.size > 0
		err = f.Truncate(max(0, last.size-1))
	case err == nil && last.size == 0:
		err = syncFolder(filepath.Dir(f.Name()))
	case err == nil:
		err = f.Sync() // who wrote the last lines may have been killed before he came to it
	}
	if err == nil && first != nil && first.Begin != j.deps.Server {
		err = fmt.Errorf("%w: it is of another server: move it away, or name another file as storage.revocationLog", ErrJournal)
	}
	j.written, j.next = last, last
	return err
}

// keepDamaged copies the file as it is, for somebody to look at.
func keepDamaged(f *os.File) error {
	to, err := os.OpenFile(f.Name()+".damaged", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("keep the damaged journal of revocations: %w", err)
	}
	_, err = io.Copy(to, io.NewSectionReader(f, 0, math.MaxInt64))
	return errors.Join(err, to.Close())
}

// begin makes sure that the store's log goes on from the last line, or lets the
// journal begin anew with the oldest event that is kept.
func (j *Journal) begin(ctx context.Context) error {
	anchor, err := anchorOf(ctx, j.deps.Store)
	if err != nil {
		return err
	}
	if j.written.size > 0 {
		purged, err := follows(ctx, j.deps.Store, j.written.at)
		if err != nil || !purged {
			return err
		}
	}
	j.opening = &line{Seq: anchor.Seq, Hash: hashText(anchor.Hash), Begin: j.deps.Server}
	return j.add(j.opening)
}

// follows says whether a store's log goes on from a place where it once was, or wraps
// ErrJournal. purged says that what followed the place is gone.
func follows(ctx context.Context, s store.Store, at store.Head) (purged bool, err error) {
	anchor, err := anchorOf(ctx, s)
	if err != nil {
		return false, err
	}
	if anchor.Seq > at.Seq || anchor == at {
		return anchor != at, nil
	}
	entries, err := store.ReadLog(ctx, s, max(at.Seq, 1)-1, 1)
	if err != nil {
		return false, err
	}
	if at == (store.Head{}) || len(entries) > 0 && entries[0].Seq == at.Seq && entries[0].Hash == at.Hash {
		return false, nil
	}
	if len(entries) > 0 && entries[0].Seq > at.Seq {
		e, err := Decode(entries[0])
		if err != nil {
			return false, err
		}
		if e.Kind == StoreRestored { // it has undone the event at that place
			return false, nil
		}
	}
	return false, fmt.Errorf("%w: it names position %d of the log, which this store does not have, or not so: the store is an older copy, or another's", ErrJournal, at.Seq)
}

// anchorOf returns the place after which a store's log begins.
func anchorOf(ctx context.Context, s store.Store) (store.Head, error) {
	item, err := s.Get(ctx, store.AnchorKey)
	if errors.Is(err, store.ErrNotFound) {
		return store.Head{}, nil
	}
	if err != nil {
		return store.Head{}, fmt.Errorf("read the log's anchor: %w", err)
	}
	return store.DecodeHead(item.Value)
}

// apply notes what a commit took away.
func (j *Journal) apply(ctx context.Context, c *store.Change) {
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.note(ctx, c)
	if err != nil {
		j.fail(err)
	}
}

func (j *Journal) note(ctx context.Context, c *store.Change) error {
	due := false
	for i := range c.Entries {
		entry := &c.Entries[i]
		if entry.Seq <= j.next.at.Seq {
			continue // taken from the log already
		}
		j.passed++
		takes := revokes(entry.Data)
		due = due || takes || j.passed >= checkpoint
		if !j.behind && (takes || j.passed >= checkpoint) {
			if err := j.addEntry(ctx, entry); err != nil {
				return err
			}
		}
	}
	switch {
	case j.behind && (due || j.passed >= retryEvery):
		j.passed = 0
		if err := j.probe(); err != nil {
			return err
		}
		return j.catchUp(ctx)
	case !c.More && !j.behind:
		return j.flush(true)
	}
	return nil
}

// probe finds out whether the file takes more again, before that is sought in all of
// the log that has passed meanwhile. It leaves the file without the end of its last
// line.
func (j *Journal) probe() error {
	const some = 64 << 10 // without a line break
	end := max(0, j.written.size-1)
	if _, err := j.file.WriteAt(make([]byte, some), end); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	if err := j.file.Truncate(end); err != nil {
		return err
	}
	j.torn = j.written.size > 0
	return nil
}

// catchUp writes what the journal lacks of the log.
func (j *Journal) catchUp(ctx context.Context) error {
	const enough = 1 << 20 // bytes that are written at once
	for seen := j.next.at.Seq; ; {
		entries, err := store.ReadLog(ctx, j.deps.Store, seen, 0)
		if err != nil {
			return err
		}
		for i := range entries {
			j.passed++
			if revokes(entries[i].Data) || j.passed >= checkpoint {
				if err := j.addEntry(ctx, &entries[i]); err != nil {
					return err
				}
			}
			seen = entries[i].Seq
		}
		if len(entries) == 0 || len(j.draft) > enough {
			if err := j.flush(len(entries) == 0); err != nil {
				return err
			}
		}
		if len(entries) == 0 {
			j.behind = false
			return nil
		}
	}
}

func (j *Journal) addEntry(ctx context.Context, entry *store.Entry) error {
	l := line{Seq: entry.Seq, Hash: hashText(entry.Hash)}
	if revokes(entry.Data) {
		e, err := Decode(*entry)
		if err != nil {
			return err
		}
		l.Event = slices.Clone(entry.Data)
		if l.Left, err = j.deps.Left(ctx, &e); err != nil {
			return fmt.Errorf("event %d: %w", entry.Seq, err)
		}
	}
	return j.add(&l)
}

// add puts a line behind the draft.
func (j *Journal) add(l *line) error {
	text, sum, err := l.seal(j.next.sum)
	if err != nil {
		return err
	}
	j.draft = append(j.draft, text...)
	j.next = mark{size: j.next.size + int64(len(text)), sum: sum, at: store.Head{Seq: l.Seq, Hash: l.hash()}}
	j.passed = 0
	return nil
}

// flush makes the draft durable. Unless the journal is whole then, it does not look so.
func (j *Journal) flush(whole bool) error {
	if len(j.draft) == 0 && j.torn != whole {
		return nil
	}
	from := j.written.size
	if j.torn {
		from--
		j.draft = slices.Insert(j.draft, 0, '\n')
	}
	text := j.draft
	if !whole {
		text = text[:len(text)-1]
	}
	if _, err := j.file.WriteAt(text, from); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	j.torn, j.opening, j.written, j.draft = !whole, nil, j.next, j.draft[:0]
	return nil
}

// fail notes that the journal lacks something: the changes stand, so nobody may rely
// on it until it is complete again. Its last line loses its end, which needs no space.
func (j *Journal) fail(err error) {
	j.behind, j.next, j.draft = true, j.written, nil
	if j.opening != nil {
		err = errors.Join(err, j.add(j.opening))
	}
	if cut := j.file.Truncate(max(0, j.written.size-1)); cut == nil {
		j.torn = j.written.size > 0
	} else {
		err = errors.Join(err, cut)
	}
	err = errors.Join(err, j.file.Sync())
	j.deps.Failed(fmt.Errorf("the journal of revocations could not be written, and is of no use for a restore until it is: %w", err))
}

// Close stops following the store, which stays open. The journal says how far it has
// seen the log.
func (j *Journal) Close(ctx context.Context) error {
	j.stop()
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.catchUp(ctx)
	if err == nil {
		err = j.checkpoint(ctx)
	}
	if err != nil {
		j.fail(err)
	}
	return errors.Join(err, j.file.Close())
}

// checkpoint writes where the log stands.
func (j *Journal) checkpoint(ctx context.Context) error {
	last, err := store.ReadLogBack(ctx, j.deps.Store, 0, 1)
	if err != nil || len(last) == 0 || last[0].Seq <= j.next.at.Seq {
		return err
	}
	if err := j.add(&line{Seq: last[0].Seq, Hash: hashText(last[0].Hash)}); err != nil {
		return err
	}
	return j.flush(true)
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// A Revocation is a line of a journal: an event, or with none of a kind the mere fact
// that the log once stood there.
type Revocation struct {
	At    store.Head
	Event Event
	Left  wire.Raw // see JournalDeps.Left
}

// Revoked reads the journal at path and returns what it has noted since a backup, of
// which head is the end of its log, was taken. The error wraps ErrJournal where the
// journal does not know all of that: it is not there or not whole, it began later, or
// the backup is of another server or of another history of this one.
func Revoked(ctx context.Context, path, server string, backup store.Store, head store.Head) ([]Revocation, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is none", ErrJournal)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	defer func() { _ = f.Close() }() // nothing was written to it
	var since []Revocation
	var known *store.Head // the last place up to the backup's
	_, first, err := scan(f, func(l *line) error {
		at := store.Head{Seq: l.Seq, Hash: l.hash()}
		switch {
		case at.Seq <= head.Seq:
			known = &at
			return nil
		case l.Begin != "":
			since, known = nil, nil
			return nil
		}
		r := Revocation{At: at, Left: l.Left}
		if l.Event != nil {
			if r.Event, err = Decode(store.Entry{Seq: at.Seq, Data: l.Event}); err != nil {
				return fmt.Errorf("%w: %w", ErrJournal, err)
			}
		}
		since = append(since, r)
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case first == nil:
		return nil, fmt.Errorf("%w: it is empty", ErrJournal)
	case first.Begin != server:
		return nil, fmt.Errorf("%w: it is of another server than the backup", ErrJournal)
	case known == nil:
		return nil, fmt.Errorf("%w: it began after the backup was taken", ErrJournal)
	}
	if _, err := follows(ctx, backup, *known); err != nil {
		return nil, err
	}
	return since, nil
}
