package actions

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"sessiond/dispatch"
	"sessiond/internal/api"
	"sessiond/internal/filter"
	"sessiond/internal/session"
	"sessiond/store"
)

// A search finds sessions for a caller: those of some accounts or of all within
// his reach, that a filter finds if there is one.
type search struct {
	server *sessions
	reach  session.Reach
	caller *session.Caller
	names  []string // of accounts; nil: no matter
	filter *filter.Filter
	record record
	ended  bool // ended ones too
	newest bool // the newest first
	stored bool // the filter, or who asks, wants of them what only the store has
	sorted bool // they are wanted in the order of their creation
}

// newSearch returns a search by a filter; nil: it finds all that live.
func (s *sessions) newSearch(c *dispatch.Call, who *session.Caller, source *string, now time.Time) (*search, error) {
	q := &search{server: s, reach: c.Reach, caller: who}
	if source == nil {
		return q, nil
	}
	fields := sessionFields(c.Config)
	f, err := parseFilter(*source, fields, now)
	if err != nil {
		return nil, err
	}
	q.filter = f
	q.record = record{fields: fields, server: s, caller: who.Handle, devices: map[string]session.Device{}}
	for i := range fields {
		q.ended = q.ended || fields[i].ended && f.Uses(i)
		q.stored = q.stored || !fields[i].inTable && f.Uses(i)
	}
	if only, ok := f.Required(byStatus); ok && !slices.ContainsFunc(only, func(s string) bool { return !slices.Contains(living(), s) }) {
		q.ended = false
	}
	return q, nil
}

// all reports whether the search finds whatever lives on the server.
func (q *search) all() bool { return q.reach.All && q.names == nil && q.filter == nil }

// each calls do for each session that the search finds beyond a handle, in the
// order of their creation if that is wanted, until it returns false. The view is
// do's until then. What is confined to some handles is looked up, as are the living
// sessions of some accounts. Of the rest the table is gone through, which does not
// know all of a session, and no order; and only else the store.
func (q *search) each(ctx context.Context, after api.ID, do func(*session.View) bool) error {
	try := func(v *session.View) bool {
		if !q.reach.Covers(v.AccountID) || !q.ended && !v.Live {
			return true
		}
		if q.filter != nil {
			if q.record.View = v; !q.filter.Match(&q.record) {
				return true
			}
		}
		return do(v)
	}
	handles, ok, err := q.lookup(ctx)
	if err != nil {
		return err
	}
	if !ok && !q.stored && !q.sorted && !q.ended {
		return q.server.Sessions.EachLiving(ctx, try)
	}
	if !ok {
		return q.server.Sessions.Each(ctx, session.Scan{After: after, Newest: q.newest, Ended: q.ended}, try)
	}
	slices.SortFunc(handles, q.compare)
	for _, h := range slices.Compact(handles) {
		if !after.IsZero() && q.compare(h, after) <= 0 {
			continue
		}
		v, err := q.server.Sessions.Find(ctx, q.reach, h)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if !try(&v) {
			return nil
		}
	}
	return nil
}

// compare orders handles in the search's direction.
func (q *search) compare(a, b api.ID) int {
	if q.newest {
		a, b = b, a
	}
	return bytes.Compare(a[:], b[:])
}

// lookup returns the only sessions that the search can find, unless it is to be
// scanned.
func (q *search) lookup(ctx context.Context) (handles []api.ID, ok bool, err error) {
	if q.filter != nil {
		if texts, ok := q.filter.Required(byHandle); ok {
			for _, text := range texts {
				if h, ok := session.ParseHandle(text); ok {
					handles = append(handles, h)
				}
			}
			return handles, true, nil
		}
	}
	if q.ended {
		return nil, false, nil // no index knows whose they were
	}
	accounts, ok, err := q.accounts(ctx)
	for _, id := range accounts {
		for _, live := range q.server.Sessions.OfAccount(id) {
			handles = append(handles, live.Handle)
		}
	}
	return handles, ok, err
}

// accounts returns the only accounts whose sessions the search can find, if it is
// confined to some.
func (q *search) accounts(ctx context.Context) (ids []api.ID, ok bool, err error) {
	if !q.reach.All { // whom else he names is not even looked for
		own := foldName(q.server.Sessions.Actor(q.caller).Username)
		if q.names == nil || slices.ContainsFunc(q.names, func(name string) bool { return foldName(name) == own }) {
			ids = append(ids, q.reach.Account)
		}
		return ids, true, nil
	}
	names, realms := q.names, q.server.Sessions.Realms()
	switch {
	case q.filter == nil && names == nil:
		return nil, false, nil
	case q.filter != nil:
		if texts, ok := q.filter.Required(byAccountID); ok {
			for _, text := range texts {
				if id, err := api.ParseID(text); err == nil {
					ids = append(ids, id)
				}
			}
			return ids, true, nil
		}
		names, ok = q.filter.Required(byUsername)
		if !ok {
			return nil, false, nil
		}
		if only, ok := q.filter.Required(byRealm); ok {
			realms = slices.DeleteFunc(realms, func(realm string) bool { return !slices.Contains(only, realm) })
		}
	}
	for _, name := range names {
		for _, realm := range realms {
			a, err := q.server.Accounts.Find(ctx, realm, name)
			if e, ok := errors.AsType[*api.Error](err); ok && (e.Code == api.NotFound || e.Code == api.BadParam) {
				continue
			}
			if err != nil {
				return nil, false, err
			}
			ids = append(ids, a.ID)
		}
	}
	return ids, true, nil
}

// A position is where a page ends: at a session, by what it is sorted by.
type position struct {
	key    string // compares byte by byte
	handle api.ID
}

// An order is what a listing is sorted by.
type order struct {
	key        func(*session.View) string // nil: by creation
	descending bool
}

// orderOf reads the member sort.
func orderOf(sort string) order {
	o := order{descending: len(sort) > 0 && sort[0] == '-'}
	if o.descending {
		sort = sort[1:]
	}
	byTime := func(at func(*session.View) int64) func(*session.View) string {
		return func(v *session.View) string { return string(binary.BigEndian.AppendUint64(nil, uint64(at(v))-1)) } //nolint:gosec // never, which is 0, comes last
	}
	switch sort {
	case "username":
		o.key = func(v *session.View) string { return foldName(v.Username) }
	case "sessionLastAccessedTimestamp":
		o.key = byTime(func(v *session.View) int64 { return v.LastAccess })
	case "maxIdleExpirationTimestamp":
		o.key = byTime(func(v *session.View) int64 { return v.IdleAt })
	case "maxSessionExpirationTimestamp":
		o.key = byTime(func(v *session.View) int64 { return v.MaxAt })
	case "endedTimestamp":
		o.key = byTime(func(v *session.View) int64 { return v.End.At })
	}
	return o
}

func (o order) compare(a, b *position) int {
	if o.descending {
		a, b = b, a
	}
	return cmp.Or(cmp.Compare(a.key, b.key), bytes.Compare(a.handle[:], b.handle[:]))
}

// first returns the first sessions beyond a position, at most limit, and where the
// next ones begin if there are more. The zero position is the beginning. Sorted by
// anything but creation, it holds the places of at most twice as many at a time, and
// reads those alone that it returns.
func (q *search) first(ctx context.Context, o order, after position, limit int) (views []session.View, next *position, err error) {
	var best []position
	if o.key == nil {
		q.newest, q.sorted = o.descending, true
		err = q.each(ctx, after.handle, func(v *session.View) bool {
			if best = append(best, position{handle: v.Handle}); len(best) <= limit {
				views = append(views, v.Keep())
			}
			return len(best) <= limit
		})
	} else if best, err = q.ranked(ctx, o, after, limit+1); err == nil {
		views, err = q.read(ctx, best[:min(limit, len(best))])
	}
	if err == nil && len(best) > limit {
		next = &best[limit-1]
	}
	return views, next, err
}

// ranked returns the places of the first sessions beyond a position.
func (q *search) ranked(ctx context.Context, o order, after position, limit int) (best []position, err error) {
	compare := func(a, b position) int { return o.compare(&a, &b) }
	cut := func() {
		slices.SortFunc(best, compare)
		best = best[:min(limit, len(best))]
	}
	var worst *position // of as many as are wanted
	err = q.each(ctx, api.ID{}, func(v *session.View) bool {
		p := position{o.key(v), v.Handle}
		switch {
		case !after.handle.IsZero() && o.compare(&p, &after) <= 0:
		case worst != nil && o.compare(&p, worst) > 0:
		default:
			if best = append(best, p); len(best) == 2*limit {
				cut()
				last := best[limit-1]
				worst = &last
			}
		}
		return true
	})
	cut()
	return best, err
}

// read returns the sessions of some places as they are now. One that has ended
// since it was given its place is left out, unless ended ones are wanted.
func (q *search) read(ctx context.Context, places []position) ([]session.View, error) {
	views := make([]session.View, 0, len(places))
	for i := range places {
		v, err := q.server.Sessions.Find(ctx, q.reach, places[i].handle)
		if errors.Is(err, store.ErrNotFound) || err == nil && !v.Live && !q.ended {
			continue
		}
		if err != nil {
			return nil, err
		}
		views = append(views, v)
	}
	return views, nil
}
