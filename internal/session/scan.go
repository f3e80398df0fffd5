package session

import (
	"context"
	"errors"
	"runtime"
	"strings"

	"sessiond/internal/api"
	"sessiond/store"
)

// scanChunk is how many records are read at once. Between two reads a scan holds
// nothing and steps back, so that what is quick does not wait for it.
const scanChunk = 256

// A Scan says which sessions Each goes through: the living ones, in the order of
// their creation, the oldest first.
type Scan struct {
	After  api.ID // only those beyond this one, in the scan's direction; zero: from its beginning
	Newest bool   // the newest first
	Ended  bool   // those too that have ended and are kept
}

// Each calls do for each session of a scan, until it returns false. A scan is no
// snapshot: it shows each session once, and as it is when its turn comes. do may
// keep the view.
func (k *Keeper) Each(ctx context.Context, s Scan, do func(*View) bool) error {
	after := s.After
	for {
		page, done, err := k.scanPage(ctx, s, after)
		if err != nil {
			return err
		}
		for i := range page {
			v, ok, err := k.scanned(ctx, s, &page[i])
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
		runtime.Gosched()
	}
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

// scanned returns a session that a scan came upon; ok is false for one that the
// scan is not about.
func (k *Keeper) scanned(ctx context.Context, s Scan, f *found) (v View, ok bool, err error) {
	r, err := decodeRecord(f.handle, f.value)
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
