package session

import (
	"context"
	"errors"
	"slices"
	"strings"

	"sessiond/internal/api"
	"sessiond/internal/clock"
	"sessiond/store"
)

// scanChunk is how many records are read at once. Between two reads a scan holds
// nothing, and rests now and then, so that what is quick does not wait for it.
const scanChunk = 128

// A Scan says which sessions Each goes through: the living ones, in the order of
// their creation, the oldest first.
type Scan struct {
	After  api.ID // only those beyond this one, in the scan's direction; zero: from its beginning
	Newest bool   // the newest first
	Ended  bool   // those too that have ended and are kept
}

// Each calls do for each session of a scan, until it returns false. A scan is no
// snapshot: it shows each session once, as it is when its turn comes, and surely
// those that are there all the time. The view is do's until it returns; Keep makes
// one that lasts.
func (k *Keeper) Each(ctx context.Context, s Scan, do func(*View) bool) error {
	after := s.After
	var read reader
	var pace clock.Pace
	for {
		page, done, err := k.scanPage(ctx, s, after)
		if err != nil {
			return err
		}
		for i := range page {
			v, ok, err := k.scanned(ctx, s, &page[i], &read)
			if err != nil {
				return err
			}
			if ok && !do(&v) {
				return nil
			}
			after = page[i].handle
		}
		if done {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		pace.Rest()
	}
}

// Keep returns a view that stays as it is.
func (v *View) Keep() View {
	kept, r := *v, *v.Record
	r.Secrets = slices.Clone(r.Secrets)
	kept.Record = &r
	return kept
}

// A found is a stored session that a scan came upon.
type found struct {
	handle api.ID
	value  []byte
	past   bool // it is a tombstone
}

// scanPage returns the next sessions of a scan, and whether they are the last. A
// session that becomes a tombstone meanwhile is found as one: what lives is read
// first.
func (k *Keeper) scanPage(ctx context.Context, s Scan, after api.ID) (page []found, done bool, err error) {
	page, done, err = k.scanKind(ctx, s, liveKeys, after)
	if err != nil || !s.Ended {
		return page, done, err
	}
	past, pastDone, err := k.scanKind(ctx, s, pastKeys, after)
	if err != nil {
		return nil, false, err
	}
	before := func(a, b api.ID) bool { return strings.Compare(string(a[:]), string(b[:])) < 0 != s.Newest && a != b }
	var merged []found
	for len(page) > 0 || len(past) > 0 {
		var next found
		switch {
		case len(past) == 0 || len(page) > 0 && before(page[0].handle, past[0].handle):
			next, page = page[0], page[1:]
		default:
			if len(page) > 0 && page[0].handle == past[0].handle {
				page = page[1:]
			}
			next, past = past[0], past[1:]
		}
		merged = append(merged, next)
		if len(page) == 0 && !done || len(past) == 0 && !pastDone {
			return merged, false, nil // what follows is not known for both kinds
		}
	}
	return merged, true, nil
}

func (k *Keeper) scanKind(ctx context.Context, s Scan, kind string, after api.ID) (page []found, done bool, err error) {
	r := store.Range{Prefix: kind, Limit: scanChunk, Reverse: s.Newest}
	if !after.IsZero() {
		r.After = kind + string(after[:])
	}
	items, err := k.store.List(ctx, r)
	if err != nil {
		return nil, false, err
	}
	page = make([]found, len(items))
	for i := range items {
		h, ok := handleOf(kind, items[i].Key)
		if !ok {
			return nil, false, ErrRecord
		}
		page[i] = found{h, items[i].Value, kind == pastKeys}
	}
	return page, len(items) < r.Limit, nil
}

// scanned returns a session that a scan came upon, until read reads the next; ok
// is false for one that the scan is not about.
func (k *Keeper) scanned(ctx context.Context, s Scan, f *found, read *reader) (v View, ok bool, err error) {
	r, err := read.again(f.handle, f.value)
	if err != nil {
		return View{}, false, err
	}
	if f.past {
		return k.ended(r), true, nil
	}
	if v, ok = k.complete(r); ok || !s.Ended {
		return v, ok, nil
	}
	v, err = k.Get(ctx, f.handle)
	if errors.Is(err, store.ErrNotFound) {
		return View{}, false, nil
	}
	return v, err == nil, err
}

// EachLiving calls do for each living session, in no order, until it returns
// false, and reads nothing from the store: a view holds what the table knows, which
// is all but Prefix, Secrets, Description, Tolerance, AbandonAfter, CursorSeconds,
// Address, UserAgent, Last, Epochs, Revision, Client, Properties, Sightings, Repeat and
// a Frozen that is but a ceiling. It is do's until it returns.
// It shows once each session that lives all the time, and each other at most once.
// When it is cut short, the next one begins about where it was.
func (k *Keeper) EachLiving(ctx context.Context, do func(*View) bool) error {
	var handles []api.ID
	var pace clock.Pace
	v := View{Record: &Record{}}
	first := int(k.goesOn.Load())
	for n := range k.table.shards {
		shard := (first + n) % len(k.table.shards)
		handles = k.table.handles(&k.table.shards[shard], handles[:0])
		for i := range handles {
			if k.known(handles[i], &v) && !do(&v) {
				k.goesOn.Store(uint32(shard)) //nolint:gosec // one of 256
				return nil
			}
			if i%scanChunk == 0 {
				pace.Rest()
			}
		}
		if err := ctx.Err(); err != nil {
			k.goesOn.Store(uint32(shard)) //nolint:gosec // one of 256
			return err
		}
	}
	return nil
}

// handles appends the handles of a shard's entries to dst.
func (t *Table) handles(s *shard, dst []api.ID) []api.ID {
	s.mu.RLock()
	defer s.mu.RUnlock()
	dst = slices.Grow(dst, s.used)
	for _, slot := range s.slots {
		if slot != 0 {
			dst = append(dst, t.entry(uint32(slot)).handle) //nolint:gosec // the low half
		}
	}
	return dst
}

// known makes v what the table knows of a session; false if that does not live.
func (k *Keeper) known(h api.ID, v *View) bool {
	live, _, ok := k.table.look(proof{handle: h, now: k.now()}, nil)
	if !ok {
		return false
	}
	r := v.Record
	*r = Record{
		Handle: h, AccountID: live.AccountID, Permanent: live.Permanent, RememberMe: live.RememberMe, Settings: *live.Settings,
		Created: live.Created, Authenticated: live.Authenticated, LastAccess: live.LastAccess, Methods: live.Methods,
	}
	r.Realm, r.Username = k.table.name(h)
	if live.IdleAt != 0 {
		r.IdleSeconds = live.IdleAt - live.LastAccess
	}
	if live.MaxAt != 0 {
		r.MaxSeconds = live.MaxAt - live.Created
	}
	holds, ok := k.table.rights(h)
	if !ok {
		return false
	}
	r.Frozen = holds.frozen
	*v = View{Record: r, Live: true, IdleAt: live.IdleAt, MaxAt: live.MaxAt}
	v.Roles, v.RealmRoles = holds.list()
	return true
}
