package session

import (
	"context"
	"errors"
	"hash/maphash"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protowire"

	"sessiond/internal/api"
	"sessiond/store"
)

// maxSightings is how many addresses of a session are kept.
const maxSightings = 5

// A Sighting is a use of a session: the first one from an address, or the last of all.
type Sighting struct {
	Address   netip.Addr
	At        int64  // Unix seconds at which it was noted
	UserAgent string // of the last use
}

// sight adds an address to those that the session was used from, and reports
// whether it is a new one. The list begins with the address of the creation and is
// empty as long as there is no other; the oldest make room.
func (r *Record) sight(s Sighting) bool {
	if s.Address == r.Address && len(r.Sightings) == 0 || slices.ContainsFunc(r.Sightings, func(old Sighting) bool { return old.Address == s.Address }) {
		return false
	}
	if len(r.Sightings) == 0 && r.Address.IsValid() {
		r.Sightings = append(r.Sightings, Sighting{Address: r.Address, At: r.Created})
	}
	r.Sightings = append(r.Sightings, s)
	r.Sightings = r.Sightings[max(0, len(r.Sightings)-maxSightings):]
	return true
}

// usePeriod is how many seconds pass at least between two writes of one session's
// last use. A new address does not wait.
const usePeriod = 60

// use takes over a use, and reports whether that changes the record, and whether it
// has to wait.
func (r *Record) use(u *noted, now int64) (changed, waits bool) {
	for _, s := range u.addresses {
		changed = r.sight(s) || changed
	}
	last := u.last
	if same := r.Last; same.At == 0 && last.Address == r.Address && last.UserAgent == r.UserAgent || last.Address == same.Address && last.UserAgent == same.UserAgent {
		return changed, false
	}
	if !changed && r.Last.At+usePeriod > now {
		return false, true
	}
	r.Last = last
	return true, false
}

// LastUse returns from where the session was used last, as far as that is known.
func (r *Record) LastUse() (from netip.Addr, userAgent string) {
	if r.Last.At == 0 {
		return r.Address, r.UserAgent
	}
	return r.Last.Address, r.Last.UserAgent
}

// sightings notes from where sessions are used, without a write and mostly without
// a lock: what was noted last is not noted again. It may forget, and then notes
// twice; where too many sessions wait it leaves one out until its next use.
type sightings struct {
	seed maphash.Seed
	last [4096]atomic.Uint64 // hashes of what was noted, by session

	mu      sync.Mutex
	waiting map[api.ID]*noted // at most maxWaiting
}

const maxWaiting = 1024

// noted is what is to be written of one session.
type noted struct {
	addresses []Sighting // at most maxSightings
	last      Sighting
}

func (s *sightings) slot(h api.ID) *atomic.Uint64 {
	return &s.last[maphash.Comparable(s.seed, h)%uint64(len(s.last))]
}

func (s *sightings) note(h api.ID, from netip.Addr, userAgent string, now int64) {
	hash := maphash.Comparable(s.seed, struct {
		handle    api.ID
		address   netip.Addr
		userAgent string
	}{h, from, userAgent})
	slot := s.slot(h)
	if slot.Load() == hash {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.waiting[h]
	if n == nil {
		if len(s.waiting) >= maxWaiting {
			return
		}
		n = &noted{}
		if s.waiting == nil {
			s.waiting = map[api.ID]*noted{}
		}
		s.waiting[h] = n
	}
	slot.Store(hash)
	n.last = Sighting{from, now, strings.Clone(userAgent)}
	if !slices.ContainsFunc(n.addresses, func(old Sighting) bool { return old.Address == from }) {
		n.addresses = append(n.addresses, Sighting{Address: from, At: now})
		n.addresses = n.addresses[max(0, len(n.addresses)-maxSightings):]
	}
}

func (s *sightings) take() map[api.ID]*noted {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.waiting
	s.waiting = nil
	return waiting
}

// forget has uses of a session noted again.
func (s *sightings) forget(h api.ID) { s.slot(h).Store(0) }

// UsedFrom notes from where a living session is used; an invalid address is not
// known, and nothing is noted. It is written some seconds later. userAgent need not
// stay as it is.
func (k *Keeper) UsedFrom(h api.ID, from netip.Addr, userAgent string) {
	if from.IsValid() {
		k.table.sightings.note(h, from, userAgent, k.now())
	}
}

// sightBatch is how many sessions are written in a commit: each is two conditions
// and a change.
const sightBatch = 30

// flushSightings writes from where sessions are used. Revisions stay: nobody
// altered anything.
func (k *Keeper) flushSightings(ctx context.Context) error {
	uses := k.table.sightings.take()
	handles := slices.Collect(maps.Keys(uses))
	var errs []error
	for batch := range slices.Chunk(handles, sightBatch) {
		err := k.writeSightings(ctx, batch, uses)
		if err == nil {
			continue
		}
		for i := range batch { // one of them holds the others up
			if err := store.Retry(func() error { return k.writeSightings(ctx, batch[i:i+1], uses) }); err != nil {
				errs = append(errs, err)
				break
			}
		}
	}
	if errs != nil {
		for _, h := range handles {
			k.table.sightings.forget(h)
		}
	}
	return errors.Join(errs...)
}

func (k *Keeper) writeSightings(ctx context.Context, handles []api.ID, uses map[api.ID]*noted) error {
	var tx store.Tx
	for _, h := range handles {
		r, rev, err := k.read(ctx, h)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		changed, waits := r.use(uses[h], k.now())
		if waits {
			k.table.sightings.forget(h)
		}
		if _, err := k.store.Get(ctx, endKey(h)); !changed || err == nil { // or it has ended
			continue
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		tx.If = append(tx.If, store.Cond{Key: liveKey(h), Rev: rev}, store.Cond{Key: endKey(h)})
		tx.Put = append(tx.Put, store.Put{Key: liveKey(h), Value: r.encode()})
	}
	if len(tx.Put) == 0 {
		return nil
	}
	_, err := k.store.Commit(ctx, tx)
	return err
}

const (
	fgAddress protowire.Number = 1 + iota
	fgAt
	fgUserAgent
)

func (s *Sighting) encode() []byte {
	e := encoder(make([]byte, 0, 32))
	e.bytes(fgAddress, s.Address.AsSlice())
	e.signed(fgAt, s.At)
	e.text(fgUserAgent, s.UserAgent)
	return e
}

func decodeSighting(data []byte) (Sighting, error) {
	var s Sighting
	err := fields(data, func(f protowire.Number, n uint64, b []byte) error {
		switch f {
		case fgAddress:
			s.Address, _ = netip.AddrFromSlice(b)
		case fgAt:
			s.At = signed(n)
		case fgUserAgent:
			s.UserAgent = string(b)
		default:
			return unknown(f)
		}
		return nil
	})
	if err == nil && !s.Address.IsValid() {
		err = ErrRecord
	}
	return s, err
}
