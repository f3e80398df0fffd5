package event

import (
	"context"
	"slices"
	"strconv"
	"time"

	"sessiond/internal/api"
	"sessiond/store"
)

// MaxPage is the most events that Read returns at once.
const MaxPage = 1000

// scanPage and scanMost bound what one call of Read looks at, so that a filter
// that fits nothing answers soon, with a cursor to go on from.
const (
	scanPage = 500
	scanMost = 20_000
)

// disorder is by how much an event's time may lie before that of an earlier one:
// a commit waits for its turn after it was given its time.
const disorder = time.Minute

// Query asks for events. Empty members ask for all.
type Query struct {
	Kinds         []Kind
	SessionHandle string
	Realm         string
	Username      func(shown string) bool // whether a name is the one that is asked for
	Only          func(*Event) bool       // beside all others; nil: all
	After         time.Time
	Before        time.Time
	Oldest        bool   // oldest first; else newest first
	Cursor        string // of the page before
	Limit         int    // at most MaxPage, which is what 0 means
}

// Logged is an event with its place in the log.
type Logged struct {
	Seq uint64
	Event
}

// Read returns a page of events and the cursor of the next, which is empty when
// there is none; the page before the end, or one that the filters left short, may
// be followed by an empty one. An error is an *api.Error for a cursor that is none of ours, or
// comes from the store.
func Read(ctx context.Context, s store.Store, q Query) (page []Logged, next string, err error) {
	if q.Limit <= 0 || q.Limit > MaxPage {
		q.Limit = MaxPage
	}
	at, err := q.start()
	if err != nil {
		return nil, "", err
	}
	for seen := 0; seen < scanMost; {
		entries, err := q.entries(ctx, s, at)
		if err != nil {
			return nil, "", err
		}
		for _, entry := range entries {
			e, err := Decode(entry)
			if err != nil {
				return nil, "", err
			}
			if q.past(&e) {
				return page, "", nil
			}
			at = entry.Seq
			if !q.fits(&e) {
				continue
			}
			if page = append(page, Logged{entry.Seq, e}); len(page) == q.Limit {
				return page, q.cursor(at), nil
			}
		}
		if len(entries) < scanPage {
			return page, "", nil
		}
		seen += len(entries)
	}
	return page, q.cursor(at), nil
}

func (q *Query) entries(ctx context.Context, s store.Store, at uint64) ([]store.Entry, error) {
	if q.Oldest {
		return store.ReadLog(ctx, s, at, scanPage)
	}
	return store.ReadLogBack(ctx, s, at, scanPage)
}

// past reports whether no later event of the walk can fit.
func (q *Query) past(e *Event) bool {
	if q.Oldest {
		return !q.Before.IsZero() && !e.Time.Before(q.Before.Add(disorder))
	}
	return !q.After.IsZero() && !e.Time.After(q.After.Add(-disorder))
}

func (q *Query) fits(e *Event) bool {
	return (len(q.Kinds) == 0 || slices.Contains(q.Kinds, e.Kind)) &&
		(q.SessionHandle == "" || q.SessionHandle == e.SessionHandle || q.SessionHandle == e.By.SessionHandle) &&
		(q.Realm == "" || q.Realm == e.Realm) &&
		(q.Only == nil || q.Only(e)) &&
		(q.Username == nil || q.Username(e.Username)) &&
		(q.After.IsZero() || e.Time.After(q.After)) &&
		(q.Before.IsZero() || e.Time.Before(q.Before))
}

// A cursor is the direction and the position of the last event seen. Clients
// give it back as it is.
const (
	cursorOldest = "o"
	cursorNewest = "n"
)

func (q *Query) direction() string {
	if q.Oldest {
		return cursorOldest
	}
	return cursorNewest
}

func (q *Query) cursor(at uint64) string { return q.direction() + strconv.FormatUint(at, 36) }

func (q *Query) start() (uint64, error) {
	if q.Cursor == "" {
		return 0, nil
	}
	at, err := strconv.ParseUint(q.Cursor[1:], 36, 64)
	if err != nil || q.Cursor[:1] != q.direction() || at == 0 {
		return 0, badCursor("must be one that the same query was answered with")
	}
	return at, nil
}

func badCursor(fault string) *api.Error {
	return api.Errorf(api.BadParam, "cursor %s", fault).At("/params/cursor")
}

// Purge forgets events older than a moment, in small commits and as long as more
// says so, and keeps the anchor by which the rest of the chain can be verified. Events
// that got their times from a clock which was ahead go with the next that is older.
func Purge(ctx context.Context, s store.Store, before time.Time, more func() bool) error {
	const batch = 90
	astray := uint64(0)
	for more() {
		entries, err := store.ReadLog(ctx, s, 0, batch)
		if err != nil {
			return err
		}
		tx := store.Tx{Urgent: true}
		var last store.Head
		for _, entry := range entries {
			e, err := Decode(entry)
			if err != nil {
				return err
			}
			if !e.Time.Before(before) && entry.Seq > astray {
				break
			}
			tx.Delete = append(tx.Delete, store.LogKey(entry.Seq))
			last = store.Head{Seq: entry.Seq, Hash: entry.Hash}
		}
		if len(tx.Delete) == 0 {
			if astray, err = astrayUntil(ctx, s, before, more); astray == 0 {
				return err
			}
			continue
		}
		tx.Put = []store.Put{{Key: store.AnchorKey, Value: last.Encode()}}
		if _, err := s.Commit(ctx, tx); err != nil {
			return err
		}
	}
	return nil
}

// astrayUntil returns the position of the first event older than a moment if the log
// begins with events that are later than its last one; else 0.
func astrayUntil(ctx context.Context, s store.Store, before time.Time, more func() bool) (uint64, error) {
	last, err := store.ReadLogBack(ctx, s, 0, 1)
	if err != nil || len(last) == 0 {
		return 0, err
	}
	newest, err := Decode(last[0])
	if err != nil {
		return 0, err
	}
	for after := uint64(0); more(); {
		entries, err := store.ReadLog(ctx, s, after, scanPage)
		if err != nil || len(entries) == 0 {
			return 0, err
		}
		for _, entry := range entries {
			e, err := Decode(entry)
			switch {
			case err != nil:
				return 0, err
			case e.Time.Before(before):
				return entry.Seq, nil
			case !e.Time.After(newest.Time.Add(disorder)):
				return 0, nil
			}
			after = entry.Seq
		}
	}
	return 0, nil
}
