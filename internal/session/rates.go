package session

import (
	"slices"
	"sync"

	"sessiond/internal/api"
	"sessiond/store"
)

// rates count what happened lately, since the process began: sessions created,
// sessions ended by status, and log-ins refused by code. Each window is a ring of
// slots, of which one is begun anew as time moves on to it; the window is short by
// the part of the present slot that is still to come.
type rates struct {
	mu    sync.Mutex
	since int64      // Unix seconds
	codes []api.Code // that refusals are counted by
	rings [3]ring
}

// A ring counts over its slots, of so many seconds each.
type ring struct {
	seconds int64
	slots   []slot
}

// A slot counts from the second at times the ring's seconds on.
type slot struct {
	at     int64
	counts []int64 // created, ended by status, refused by code
}

// refusals is where the counts of refusals begin; that of creations stands where
// no status is.
const refusals = len(Tally{})

// open begins to count.
func (r *rates) open(now int64) {
	r.since = now
	for _, row := range api.Codes() {
		if row.Code >= api.LoginFailed && row.Code < api.NotFound || row.Code == api.Overloaded {
			r.codes = append(r.codes, row.Code)
		}
	}
	for i, of := range [...]struct{ seconds, slots int64 }{{1, 60}, {60, 60}, {900, 96}} {
		slots := make([]slot, of.slots)
		for j := range slots {
			slots[j].counts = make([]int64, refusals+len(r.codes))
		}
		r.rings[i] = ring{of.seconds, slots}
	}
}

// add counts what happened by a moment that is not before those that it was told
// already, or by little.
func (r *rates) add(now int64, kind int, n int64) {
	for i := range r.rings {
		at := now / r.rings[i].seconds
		s := &r.rings[i].slots[at%int64(len(r.rings[i].slots))]
		if s.at < at {
			s.at = at
			clear(s.counts)
		}
		s.counts[kind] += n
	}
}

// Happened is what happened in a window of time.
type Happened struct {
	Created int64
	Ended   Tally
	Refused []Refused // those that there were, by code
}

// Refused is how many log-ins were refused with a code.
type Refused struct {
	Code  api.Code
	Count int64
}

// last returns what happened in each of the windows.
func (r *rates) last(now int64) (windows [3]Happened) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sums := make([]int64, refusals+len(r.codes))
	for i := range r.rings {
		clear(sums)
		first := now/r.rings[i].seconds - int64(len(r.rings[i].slots))
		for _, s := range r.rings[i].slots {
			if s.at <= first {
				continue
			}
			for kind, n := range s.counts {
				sums[kind] += n
			}
		}
		w := &windows[i]
		w.Created, sums[0] = sums[0], 0
		w.Ended = Tally(sums[:refusals])
		for j, code := range r.codes {
			if n := sums[refusals+j]; n > 0 {
				w.Refused = append(w.Refused, Refused{code, n})
			}
		}
	}
	return windows
}

// NoteRefusal counts a log-in that was refused with a code of log-ins, permissions,
// limits or load; of others nothing is counted.
func (k *Keeper) NoteRefusal(code api.Code) {
	r := &k.table.rates
	if i := slices.Index(r.codes, code); i >= 0 {
		now := k.now()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.add(now, refusals+i, 1)
	}
}

// rate counts what a commit does, before the table takes it over: which sessions
// are new, and which ended, can still be seen.
func (t *Table) rate(c *store.Change) {
	var created int64
	var ended Tally
	for i := range c.Put {
		if h, ok := handleOf(liveKeys, c.Put[i].Key); ok && !t.holds(h) {
			created++
		} else if _, ok := handleOf(endKeys, c.Put[i].Key); ok {
			if end, err := decodeEnd(c.Put[i].Value); err == nil {
				ended[end.Status]++
			}
		}
	}
	for _, key := range c.Delete {
		h, ok := handleOf(liveKeys, key)
		if !ok || !t.holds(h) {
			continue // it ended earlier, and is only folded now
		}
		past := pastKey(h)
		if i := slices.IndexFunc(c.Put, func(p store.Item) bool { return p.Key == past }); i >= 0 {
			if r, err := decodeRecord(h, c.Put[i].Value); err == nil {
				ended[r.End.Status]++
			}
		}
	}
	if created == 0 && ended == (Tally{}) {
		return
	}
	now := t.now()
	t.rates.mu.Lock()
	defer t.rates.mu.Unlock()
	t.rates.add(now, 0, created)
	for status, n := range ended {
		if n > 0 {
			t.rates.add(now, status, n)
		}
	}
}

func (t *Table) holds(h api.ID) (held bool) {
	t.withEntry(h, func(*entry) { held = true })
	return held
}
